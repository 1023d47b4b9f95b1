"""The memory model: how it grows, and how far it is from what a pack really uses."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from lora_runner.config import TrialConfig
from lora_runner.layout import Block
from lora_runner.memory import MemoryEstimate, available_memory, estimate
from lora_runner.models import Base, BaseSpec, load_base
from lora_runner.pack import MicroBatch, Pack, PackOptions

TINY = Callable[..., Path]
USUAL: dict[str, Any] = {
    "target_modules": "all-linear",
    "train_embeddings": False,
    "lora_r": 8,
    "batch_size": 4,
    "length": 64,
    "gradient_checkpointing": False,
    "available": 1e12,
}


@pytest.fixture
def spec(tiny_model: TINY) -> BaseSpec:
    return BaseSpec(model=str(tiny_model("llama")))


def test_the_base_is_half_a_byte_a_quantised_weight_and_full_width_elsewhere(spec: BaseSpec) -> None:
    linear = 2 * (64 * 64 * 2 + 64 * 32 * 2 + 3 * 64 * 128)  # q, o; k, v; gate, up, down of two layers
    other = 2 * 256 * 64 + 5 * 64  # embeddings and output layer; norms
    largest = 64 * 128
    quantised = estimate(spec, **USUAL).base
    assert quantised == pytest.approx(linear * 0.52 + (other + largest) * 4)
    assert estimate(spec, **USUAL, resident_weights=True).base == pytest.approx(linear * 4.52 + other * 4)
    plain = BaseSpec(model=spec.model, quantization="none")
    assert estimate(plain, **USUAL).base == pytest.approx((linear + other) * 4)
    narrow = BaseSpec(model=spec.model, compute_dtype="bfloat16")
    assert estimate(narrow, **USUAL).base == pytest.approx(linear * 0.52 + (other + largest) * 2)


def test_tied_embeddings_are_counted_once(tiny_model: TINY, spec: BaseSpec) -> None:
    tied = BaseSpec(model=str(tiny_model("llama", tie_word_embeddings=True)))
    assert estimate(spec, **USUAL).base - estimate(tied, **USUAL).base == 256 * 64 * 4
    trained = {**USUAL, "train_embeddings": True}
    assert estimate(tied, **trained).per_seat - estimate(tied, **USUAL).per_seat == 16 * 256 * 64
    assert estimate(spec, **trained).per_seat - estimate(spec, **USUAL).per_seat == 16 * 2 * 256 * 64


def test_a_seat_pays_16_bytes_a_trained_parameter(spec: BaseSpec) -> None:
    sides = 2 * (2 * (64 + 64) + 2 * (64 + 32) + 3 * (64 + 128))
    wide = estimate(spec, **{**USUAL, "lora_r": 24}).per_seat
    assert wide - estimate(spec, **USUAL).per_seat == 16 * 16 * sides


def test_a_seat_pays_for_the_logits_of_every_token(tiny_model: TINY, spec: BaseSpec) -> None:
    large = BaseSpec(model=str(tiny_model("llama", vocab_size=1024)))
    more = estimate(large, **USUAL).per_seat - estimate(spec, **USUAL).per_seat
    assert more == pytest.approx(4 * 64 * (1024 - 256) * 12)  # logits, their fp32 copy, the gradient


def test_the_estimate_grows_with_everything_that_costs(spec: BaseSpec) -> None:
    usual = estimate(spec, **USUAL)
    for more in (
        {"lora_r": 16},
        {"train_embeddings": True},
        {"train_embeddings": ("lm_head",)},
        {"batch_size": 8},
        {"length": 128},
    ):
        assert estimate(spec, **{**USUAL, **more}).per_seat > usual.per_seat, more
        assert estimate(spec, **{**USUAL, **more}).base == usual.base, more
    assert estimate(spec, **{**USUAL, "gradient_checkpointing": True}).per_seat < usual.per_seat
    assert estimate(spec, **{**USUAL, "target_modules": ("q_proj",)}).per_seat < usual.per_seat
    # Twice the tokens, twice what depends on them.
    tokens = [estimate(spec, **{**USUAL, "batch_size": size}).per_seat for size in (1, 2, 3)]
    assert tokens[2] - tokens[1] == pytest.approx(tokens[1] - tokens[0])
    assert usual.total(3) - usual.total(1) == pytest.approx(2 * usual.per_seat)


def test_seats_fit_below_the_planned_share() -> None:
    assert MemoryEstimate(base=10.0, per_seat=5.0, available=100.0).max_seats() == 15  # (85 - 10) / 5
    assert MemoryEstimate(base=10.0, per_seat=5.1, available=100.0).max_seats() == 14
    assert MemoryEstimate(base=90.0, per_seat=1.0, available=100.0).max_seats() == 0


def test_models_with_transposed_layers_are_estimated_too(tiny_model: TINY) -> None:
    found = estimate(BaseSpec(model=str(tiny_model("gpt2", tie_word_embeddings=True))), **USUAL)
    linear = 2 * (64 * 192 + 64 * 64 + 2 * 64 * 256)
    other = 2 * 256 * 64 + 2 * (192 + 64 + 256 + 64) + 5 * 2 * 64  # words and positions; biases; norms
    assert found.base == pytest.approx(linear * 0.52 + (other + 64 * 256) * 4)


def test_available_memory_is_that_of_the_machine() -> None:
    assert 2**26 < available_memory(torch.device("cpu")) < 2**50


def peak_bytes(base: Base, options: PackOptions, seats: int, batch_size: int, length: int, rank: int) -> int:
    """Bytes of live tensors at the worst moment: the base, a pack, and two of its steps."""
    held = sum(p.numel() * p.element_size() for p in base.model.parameters())
    for module in base.model.modules():
        state = getattr(getattr(module, "weight", None), "quant_state", None)
        if state is not None:
            held += state.absmax.numel() * state.absmax.element_size()
    config = TrialConfig(
        learning_rate=1e-3,
        embedding_learning_rate=1e-3,
        max_steps=9,
        lora_r=rank,
        lora_alpha=rank,
        per_device_train_batch_size=batch_size,
    )
    ids = torch.randint(2, 200, (batch_size, length), generator=torch.Generator().manual_seed(0))
    share = MicroBatch(Block.from_labels(ids, ids), ids.numel(), batch_size * (length - 1))
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        pack = Pack(base, options)
        placed = [pack.new_seat(config) for _ in range(seats)]
        for _ in range(2):
            pack.train_step(dict.fromkeys(placed, share))
    live = peak = 0
    events = [e for e in profiler.profiler.kineto_results.events() if e.name() == "[memory]"]
    for event in sorted(events, key=lambda e: e.start_ns()):
        live += event.nbytes()
        peak = max(peak, live)
    assert live > 0
    return int(held + peak)


@pytest.mark.parametrize(
    ("seats", "batch_size", "length", "options"),
    [
        pytest.param(2, 4, 64, {"train_embeddings": True}, id="embeddings"),
        pytest.param(3, 8, 128, {"train_embeddings": False}, id="long"),
        pytest.param(
            2, 8, 128, {"train_embeddings": False, "gradient_checkpointing": True}, id="checkpointing"
        ),
        pytest.param(1, 1, 16, {"train_embeddings": True, "resident_weights": True}, id="resident"),
    ],
)
def test_the_estimate_is_near_what_a_pack_uses(
    tiny_model: TINY, seats: int, batch_size: int, length: int, options: dict[str, Any]
) -> None:
    folder = tiny_model("llama", hidden_size=128, intermediate_size=384, num_hidden_layers=4, vocab_size=1024)
    spec = BaseSpec(model=str(folder))
    measured = peak_bytes(load_base(spec), PackOptions(**options), seats, batch_size, length, rank=8)
    said = estimate(spec, **{**USUAL, "batch_size": batch_size, "length": length, **options})
    # 1.00 to 1.24 when this was written; a model may be wrong by more on other shapes.
    assert 0.67 < said.total(seats) / measured < 1.5
