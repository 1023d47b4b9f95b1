"""Whole packs whose passes are captured: the bits of passes that are computed as usual."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from lora_runner.base.load_model import BaseSpec, load_base
from lora_runner.fused.compute_path import Machine
from lora_runner.graphs.graph import CudaGraphPool, GraphPool
from lora_runner.layout.pack_layout import Block
from lora_runner.pack.options import PackOptions
from lora_runner.pack.pack import MicroBatch, Pack
from tests.lora_runner.devices import DEVICE
from tests.lora_runner.graphs.tape import TapePool
from tests.lora_runner.pack.drawn_packs import VOCABULARY
from tests.lora_runner.pack.test_exactness import changed

CONFIGS = (
    changed(seed=1, lora_r=16, lora_dropout=0.3).config,
    changed(seed=2, lora_r=8, gradient_accumulation_steps=2).config,
)


class Packs:
    """A pack that captures its passes, with checkpointed layers, and one that computes the same as usual."""

    def __init__(self, folder: Path) -> None:
        self.pools: list[GraphPool] = []
        self.captured, self.usual = (
            Pack(
                load_base(BaseSpec(model=str(folder))),
                PackOptions(
                    train_embeddings=True,
                    resident_weights=True,
                    gradient_checkpointing=is_captured,
                    graphs=is_captured,
                ),
                Machine(True, "a test says so", self._new_pool),
            )
            for is_captured in (True, False)
        )
        assert self.captured.path.is_fused, self.captured.path.reason

    def _new_pool(self) -> GraphPool:
        buffers = self.captured.adapter_buffers, self.captured.embedding_buffers
        state = [buffer.gradients for buffer in buffers if buffer is not None]
        self.pools.append(TapePool(lambda: state) if DEVICE.type == "cpu" else CudaGraphPool(DEVICE))
        return self.pools[-1]

    def assert_captured(self) -> None:
        assert self.captured.captures()[1] == ""
        assert self.pools
        if DEVICE.type == "cpu":
            assert all(pool.num_replays for pool in self.pools if isinstance(pool, TapePool))


@pytest.fixture(scope="module")
def packs(tiny_model: Callable[..., Path]) -> Packs:
    return Packs(tiny_model("llama", vocab_size=VOCABULARY, num_hidden_layers=1, tie_word_embeddings=True))


def test_checkpointed_layers_are_captured(packs: Packs) -> None:
    gradients = []
    for pack in (packs.captured, packs.usual):
        seats = [pack.new_seat(config) for config in CONFIGS]
        for lengths in ((5, 4), (3, 6)):
            blocks = [random_block(length) for length in lengths]
            pack.micro_step(
                {
                    seat: MicroBatch(block, block.num_tokens, 9)
                    for seat, block in zip(seats, blocks, strict=True)
                }
            )
        gradients.append([gradient for seat in seats for gradient in seat.gradients.values()])
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(*gradients, strict=True))
    packs.assert_captured()


def random_block(length: int) -> Block:
    ids = [(7 * length + 3 * index) % VOCABULARY for index in range(length)]
    return Block.of([(ids, ids)], DEVICE)


def test_tokens_after_cached_ones_are_captured(packs: Packs) -> None:
    prompts = [[5, 9, 11, 40, 7], [3]]
    texts = []
    for pack in (packs.captured, packs.usual):
        seat = pack.new_seat(CONFIGS[0])
        for parameter in seat.parameters.values():
            parameter.add_(0.05)  # a new adapter leaves the base as it is
        pack.generator._reason = ""  # whether a cache can be used is asked elsewhere
        texts.append(pack.generate([seat, None], prompts, 3, stop_token_ids=(), batch_size=1))
    assert texts[0] == texts[1]
    packs.assert_captured()
    assert all(key.cache is None for key in packs.captured._passes._passes._buckets)  # theirs is freed
