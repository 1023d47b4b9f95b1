"""Whole packs whose passes are captured: the bits of passes that are computed as usual."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from lora_runner.base.load_model import BaseSpec, load_base
from lora_runner.fused.compute_path import Machine
from lora_runner.graphs import buckets
from lora_runner.layout.pack_layout import Block
from lora_runner.pack.options import PackOptions
from lora_runner.pack.pack import MicroBatch, Pack
from tests.lora_runner.devices import DEVICE
from tests.lora_runner.graphs.pools import Pools
from tests.lora_runner.pack.drawn_packs import VOCABULARY
from tests.lora_runner.pack.test_exactness import changed

CONFIGS = (
    changed(seed=1, lora_r=16, lora_dropout=0.3).config,
    changed(seed=2, lora_r=8, gradient_accumulation_steps=2).config,
)


class Packs:
    """A pack that captures its passes, with checkpointed layers, and one that computes the same as usual."""

    def __init__(self, folder: Path) -> None:
        self.pools = Pools.of(lambda: self.captured)
        self.captured, self.usual = (
            Pack(
                load_base(BaseSpec(model=str(folder))),
                PackOptions(
                    train_embeddings=True,
                    resident_weights=True,
                    gradient_checkpointing=is_captured,
                    graphs=is_captured,
                ),
                Machine(True, "a test says so", self.pools.new),
            )
            for is_captured in (True, False)
        )
        assert self.captured.path.is_fused, self.captured.path.reason


@pytest.fixture(scope="module")
def packs(tiny_model: Callable[..., Path]) -> Packs:
    return Packs(tiny_model("llama", vocab_size=VOCABULARY, num_hidden_layers=1, tie_word_embeddings=True))


@pytest.fixture(autouse=True)
def _few_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(buckets, "ROW_MULTIPLE", 16)  # the interpreter takes seconds for each row


def test_training_and_evaluation_are_captured(packs: Packs) -> None:
    """Checkpointed layers, a window open beside an update, evaluations between, a seat that comes later."""
    results = []
    for pack in (packs.captured, packs.usual):
        seats, losses = [pack.new_seat(CONFIGS[0])], []
        for lengths in ((5,), (3, 6), (4, 2)):
            if len(seats) < len(lengths):
                seats.append(pack.new_seat(CONFIGS[1]))
            blocks = [random_block(length) for length in lengths]
            pack.train_step(
                {
                    seat: MicroBatch(block, block.num_tokens, 9)
                    for seat, block in zip(seats, blocks, strict=True)
                }
            )
            losses.append(pack.evaluate([*seats, None], blocks[:1]))
        results.append((losses, [dict(seat.state_tensors()) for seat in seats]))
    (our_losses, ours), (their_losses, theirs) = results
    assert our_losses == their_losses
    for our_state, their_state in zip(ours, theirs, strict=True):
        assert all(torch.equal(tensor, their_state[name]) for name, tensor in our_state.items())
    packs.pools.assert_used(packs.captured)


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
    packs.pools.assert_used(packs.captured)
    assert all(key.cache is None for key in packs.captured._passes._passes._buckets)  # theirs is freed
