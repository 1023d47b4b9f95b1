"""Models of transformers with the fused attention, beside the general path and beside whole texts."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, Gemma2Config, LlamaConfig, MistralConfig, Qwen2Config

from lora_runner.fused.attention.in_sequences import attend_in_sequences
from lora_runner.graphs.capture_guard import CaptureGuard
from lora_runner.layers.attention import (
    PACK_ATTENTION,
    AttentionImplementation,
    LengthBuckets,
    attend_in_buckets,
)
from lora_runner.layout.sequence_tables import SequenceShape, SequenceTables
from lora_runner.layout.slot_cache import SlotCache
from tests.lora_runner.kernels.interpreter import DEVICE

SIZES: dict[str, Any] = {
    "vocab_size": 64,
    "hidden_size": 64,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}
CONFIGS: dict[str, Callable[[], Any]] = {
    "llama": lambda: LlamaConfig(**SIZES),
    "qwen2": lambda: Qwen2Config(**SIZES),
    "mistral, sliding window": lambda: MistralConfig(**SIZES, sliding_window=6),
    "gemma 2, soft cap and window in every other layer": lambda: Gemma2Config(
        **SIZES, head_dim=16, sliding_window=6, attn_logit_softcapping=2.0
    ),
}
LENGTHS = ((5, 17), (11,))
# float32: two layers of sums of at most 64 products, each of about unit size, in two orders.
ROUNDING = 1e-5


def new_model(kind: str, seed: int) -> Any:
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(CONFIGS[kind]()).to(DEVICE).eval()
    for parameter in model.parameters():
        parameter.data.normal_(std=0.2).requires_grad_(False)
    return model


def general(model: Any, lengths: Sequence[Sequence[int]]) -> AbstractContextManager[None]:
    name = model.config._attn_implementation
    implementation = AttentionImplementation("eager" if name == PACK_ATTENTION else name, DEVICE.type)
    return attend_in_buckets(LengthBuckets.of(lengths, mix_blocks=False), implementation)


def computed(
    model: Any, attention: AbstractContextManager[None], embeds: Tensor, positions: Tensor
) -> Tensor:
    """Hidden states (T, h) of rows end to end."""
    before = model.config._attn_implementation
    model.config._attn_implementation = PACK_ATTENTION
    try:
        with attention:
            hidden: Tensor = model.model(
                inputs_embeds=embeds[None],
                position_ids=positions[None],
                attention_mask=torch.ones(1, len(embeds), dtype=torch.int64, device=DEVICE),
                use_cache=False,
            )[0][0]
    finally:
        model.config._attn_implementation = before
    return hidden


def positions_of(lengths: Sequence[int], first: Sequence[int] | None = None) -> Tensor:
    starts = first or [0] * len(lengths)
    parts = [torch.arange(length) + start for length, start in zip(lengths, starts, strict=True)]
    return torch.cat(parts).to(DEVICE)


@pytest.mark.parametrize("kind", CONFIGS)
def test_hidden_states_and_gradients_are_those_of_the_general_path(kind: str, seed: int) -> None:
    model = new_model(kind, seed)
    flat = [length for block in LENGTHS for length in block]
    total, padding = sum(flat), 7
    embeds = torch.randn(total + padding, 64, device=DEVICE)
    weights = torch.randn(total, 64, device=DEVICE)
    tables = SequenceTables.of(SequenceShape(total + padding, len(flat) + 2), flat, DEVICE)
    found = []
    for attention, rows in (
        (general(model, LENGTHS), total),
        (attend_in_sequences(tables), total + padding),
    ):
        leaf = embeds[:rows].clone().requires_grad_()
        positions = positions_of([*flat, rows - total])
        hidden = computed(model, attention, leaf, positions)[:total]
        (gradient,) = torch.autograd.grad((hidden * weights).sum(), leaf)
        found.append((hidden.detach(), gradient[:total]))
    for one, other in zip(*found, strict=True):
        assert (one - other).abs().max() <= ROUNDING * one.abs().max()


@pytest.mark.parametrize("kind", ["llama", "gemma 2, soft cap and window in every other layer"])
@torch.no_grad()
def test_cached_tokens_have_the_hidden_states_of_whole_texts(kind: str, seed: int) -> None:
    """Prompts, three new tokens each, one text that ends early; then other prompts in the same cache."""
    model = new_model(kind, seed)
    cache = SlotCache(num_slots=4, capacity=24, device=DEVICE)
    for lengths in ([3, 12, 7], [9, 2]):
        texts = [torch.randn(length + 3, 64, device=DEVICE) for length in lengths]
        rows = list(range(len(lengths)))
        cache.start(lengths, 3)
        tables = SequenceTables.empty(SequenceShape(sum(lengths) + 2, 5), DEVICE)
        prompts = torch.cat([text[:length] for text, length in zip(texts, lengths, strict=True)])
        prefilled = one_pass(model, cache, tables, prompts, positions_of(lengths))
        compare(model, prefilled[torch.tensor(lengths).cumsum(0) - 1], [texts[i][: lengths[i]] for i in rows])
        tables = SequenceTables.empty(SequenceShape(4, 5), DEVICE)
        for step in range(3):
            if step == 1:
                cache.keep([0, *range(2, len(rows))])
                del rows[1]
            assert cache.positions == [lengths[i] + step for i in rows]
            tokens = torch.stack([texts[i][lengths[i] + step] for i in rows])
            hidden = one_pass(model, cache, tables, tokens, torch.tensor(cache.positions, device=DEVICE))
            compare(model, hidden, [texts[i][: lengths[i] + step + 1] for i in rows])


@torch.no_grad()
def test_a_pass_reads_nothing_on_the_host_and_can_be_computed_twice(seed: int) -> None:
    """What a capture needs: once a mask is known, neither prompts nor tokens make the host wait."""
    model = new_model("gemma 2, soft cap and window in every other layer", seed)
    cache = SlotCache(num_slots=2, capacity=9, device=DEVICE)
    cache.start([3, 4], 2)
    for rows in (7, 2):
        tables = SequenceTables.empty(SequenceShape(rows, 2), DEVICE)
        cache.prepare(tables)
        embeds = torch.randn(rows, 64, device=DEVICE)
        positions = torch.arange(rows, device=DEVICE)
        once = computed(model, attend_in_sequences(tables, cache), embeds, positions)
        attention = attend_in_sequences(tables, cache)
        guard = CaptureGuard(DEVICE.type)
        twice = computed(model, guarded(attention, guard), embeds, positions)
        assert torch.equal(once, twice)
        cache.end_pass()


@contextmanager
def guarded(attention: AbstractContextManager[None], guard: CaptureGuard) -> Iterator[None]:
    with attention, guard:
        yield


def one_pass(
    model: Any, cache: SlotCache, tables: SequenceTables, embeds: Tensor, positions: Tensor
) -> Tensor:
    """A pass whose rows are padded as the tables say."""
    count, padding = len(embeds), tables.shape.num_rows - len(embeds)
    cache.prepare(tables)
    embeds = torch.cat([embeds, torch.zeros(padding, embeds.shape[1], device=DEVICE)])
    positions = torch.cat([positions, torch.zeros(padding, dtype=torch.int64, device=DEVICE)])
    hidden = computed(model, attend_in_sequences(tables, cache), embeds, positions)
    cache.end_pass()
    return hidden[:count]


def compare(model: Any, found: Tensor, texts: Sequence[Tensor]) -> None:
    """`found` are the hidden states of the last tokens of `texts`."""
    lengths = [len(text) for text in texts]
    whole = computed(model, general(model, [lengths]), torch.cat(list(texts)), positions_of(lengths))
    expected = whole[torch.tensor(lengths).cumsum(0) - 1]
    assert (found - expected).abs().max() <= ROUNDING * expected.abs().max()


def test_a_cache_refuses_what_it_cannot_hold() -> None:
    cache = SlotCache(num_slots=2, capacity=8, device=DEVICE)
    with pytest.raises(ValueError, match="a cache of 2 slots cannot hold 3 sequences"):
        cache.start([1, 1, 1], 1)
    with pytest.raises(ValueError, match="a slot of 8 tokens cannot hold 9"):
        cache.start([6], 3)
