"""The memory estimate: how it grows, the choice of seats, and its distance from what a pack really uses."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers.models.llama import modeling_llama

from lora_runner.base.liger import use_liger
from lora_runner.base.load_model import BaseSpec, load_base, meta_model
from lora_runner.base.quantization import NF4 as NF4_KIND
from lora_runner.errors import ModelError
from lora_runner.fused.compute_path import Machine
from lora_runner.layers.attention import AttentionImplementation
from lora_runner.layers.invariant_attention import invariant_attention
from lora_runner.memory import estimate as memory
from lora_runner.memory.dry_run import DryRun
from lora_runner.memory.estimate import (
    MemoryEstimate,
    Workload,
    choose_seats,
    estimate,
)
from lora_runner.memory.planned_device import PlannedDevice
from lora_runner.memory.sizes import CapturedBytes, SeatState
from lora_runner.pack import packed_model
from lora_runner.pack.pack import Pack
from tests.lora_runner.memory.peak import peak_bytes

TINY = Callable[..., Path]
CPU = torch.device("cpu")
USUAL = Workload(lora_r=8, batch_size=4, length=64)
NF4 = 0.5 + 1 / 64 + 4 / (64 * 256)
"""Bytes a quantized weight: QLoRA, section 3 (4 bits, 8-bit scales of 64, fp32 scales of 256 of those)."""


@pytest.fixture
def spec(tiny_model: TINY) -> BaseSpec:
    return BaseSpec(model=str(tiny_model("llama")))


# --- what is kept -------------------------------------------------------------------------------------


def test_the_base_is_half_a_byte_a_quantized_weight_and_full_width_elsewhere(spec: BaseSpec) -> None:
    linear = 2 * (64 * 64 * 2 + 64 * 32 * 2 + 3 * 64 * 128)  # q, o; k, v; gate, up, down of two layers
    other = 2 * 256 * 64 + 5 * 64  # embeddings and output layer; norms
    assert estimate(spec, USUAL).base == pytest.approx(linear * NF4 + other * 4, abs=1)
    resident = estimate(spec, replace(USUAL, resident_weights=True))
    assert resident.base == pytest.approx(linear * (NF4 + 4) + other * 4, abs=1)
    assert estimate(replace_spec(spec, quantization="none"), USUAL).base == (linear + other) * 4
    narrow = estimate(replace_spec(spec, compute_dtype="bfloat16"), replace(USUAL, resident_weights=True))
    assert narrow.base == pytest.approx(linear * (NF4 + 2) + other * 2, abs=1)


def replace_spec(spec: BaseSpec, **changed: Any) -> BaseSpec:
    return replace(spec, **changed)


def test_tied_embeddings_are_counted_once(tiny_model: TINY, spec: BaseSpec) -> None:
    tied = BaseSpec(model=str(tiny_model("llama", tie_word_embeddings=True)))
    assert estimate(spec, USUAL).base - estimate(tied, USUAL).base == 256 * 64 * 4
    trained = replace(USUAL, train_embeddings=True)
    assert estimate(tied, trained).per_seat - estimate(tied, USUAL).per_seat == 16 * 256 * 64
    assert estimate(spec, trained).per_seat - estimate(spec, USUAL).per_seat == 16 * 2 * 256 * 64


def test_a_seat_pays_16_bytes_a_trained_parameter_as_it_is_stored(spec: BaseSpec) -> None:
    sides = 2 * (2 * (64 + 64) + 2 * (64 + 32) + 3 * (64 + 128))
    for rank, stored in ((8, 8), (9, 16), (24, 24)):  # padded to multiples of 8
        blocks = -(-stored * sides // 1024)
        assert estimate(spec, replace(USUAL, lora_r=rank)).per_seat == 16 * 1024 * blocks


def test_moments_in_8_bits_take_2_bytes_and_a_scale(spec: BaseSpec) -> None:
    trained = replace(USUAL, train_embeddings=True)
    narrow = replace(trained, embedding_optimizer_bits=8)
    less = estimate(spec, trained).per_seat - estimate(spec, narrow).per_seat
    assert less == 2 * 256 * 64 * (8 - 2 - 8 / 256)


def test_of_single_tokens_a_seat_keeps_their_rows(tiny_model: TINY, spec: BaseSpec) -> None:
    tokens = replace(USUAL, trainable_token_indices=tuple(range(32)))
    tied = BaseSpec(model=str(tiny_model("llama", tie_word_embeddings=True)))
    for each in (spec, tied):
        assert estimate(each, tokens).per_seat - estimate(each, USUAL).per_seat == 16 * 32 * 64


def test_models_with_transposed_layers_are_estimated_too(tiny_model: TINY) -> None:
    found = estimate(BaseSpec(model=str(tiny_model("gpt2", tie_word_embeddings=True))), USUAL)
    linear = 2 * (64 * 192 + 64 * 64 + 2 * 64 * 256)
    other = 2 * 256 * 64 + 2 * (192 + 64 + 256 + 64) + 5 * 2 * 64  # words and positions; biases; norms
    assert found.base == pytest.approx(linear * NF4 + other * 4, abs=1)
    assert found.source == "peak from a dry run"


# --- how the peak grows -------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_peak_grows_with_everything_that_costs(spec: BaseSpec) -> None:
    usual = estimate(spec, USUAL)
    for more in (
        {"lora_r": 16},
        {"train_embeddings": True},
        {"train_embeddings": ("lm_head",)},
        {"batch_size": 8},
        {"length": 128},
        {"eval_batch_size": 64, "eval_length": 128},
    ):
        found = estimate(spec, replace(USUAL, **more))
        assert found.total(2) > usual.total(2), more
        assert found.base == usual.base, more
    assert estimate(spec, replace(USUAL, gradient_checkpointing=True)).total(2) < usual.total(2)
    assert estimate(spec, replace(USUAL, target_modules=("q_proj",))).total(2) < usual.total(2)
    # Masks exist only while a layer computes, which is the peak if the layer keeps nothing else.
    checkpointed = replace(USUAL, gradient_checkpointing=True, target_modules=("down_proj",))
    dropped = replace(checkpointed, lora_dropout=0.1)
    assert estimate(spec, dropped).total(2) > estimate(spec, checkpointed).total(2)
    # An evaluation that takes less than a step does not add to it.
    small = replace(USUAL, eval_batch_size=2, eval_length=32)
    assert estimate(spec, small).total(2) == usual.total(2)


def test_a_layer_more_adds_what_a_layer_keeps(tiny_model: TINY) -> None:
    """Only two of these layers run; the others are counted by what one of them keeps."""
    totals = [
        estimate(
            BaseSpec(model=str(tiny_model("llama", num_hidden_layers=n))),
            replace(USUAL, resident_weights=True),
        ).total(1)
        for n in (2, 3, 12)
    ]
    assert totals[2] - totals[0] == pytest.approx(10 * (totals[1] - totals[0]), rel=1e-3)


def test_one_dequantized_weight_at_a_time_takes_its_place(tiny_model: TINY) -> None:
    # So few tokens that only weights count.
    few = replace(USUAL, batch_size=1, length=2)
    wide = BaseSpec(model=str(tiny_model("llama", intermediate_size=4096)))
    plain, resident = estimate(wide, few), estimate(wide, replace(few, resident_weights=True))
    beside = [found.total(1) - found.base - found.per_seat for found in (plain, resident)]
    largest = 64 * 4096 * 4
    assert largest < beside[0] < 1.5 * largest
    assert beside[1] < 0.7 * largest


@pytest.mark.slow
def test_layers_are_told_apart_by_what_is_trained_in_them(spec: BaseSpec, tiny_model: TINY) -> None:
    deep = BaseSpec(model=str(tiny_model("llama", num_hidden_layers=8)))
    first = replace(USUAL, target_modules=r".*layers\.0\..*")
    last = replace(USUAL, target_modules=r".*layers\.7\..*")
    every = replace(USUAL, target_modules=r".*layers\.\d\..*")
    assert estimate(deep, first).total(1) < 0.8 * estimate(deep, every).total(1)
    # Below the first layer that is trained, nothing is kept.
    assert estimate(deep, last).total(1) < 0.7 * estimate(deep, first).total(1)
    with pytest.raises(ModelError, match="matches"):
        estimate(deep, replace(USUAL, target_modules=("nonesuch",)))


def test_logits_are_computed_in_chunks(
    tiny_model: TINY, spec: BaseSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    large = BaseSpec(model=str(tiny_model("llama", vocab_size=4096)))
    whole = estimate(large, USUAL)
    beside = whole.total(4) - whole.base - 4 * whole.per_seat
    assert beside > 4 * 4 * 63 * 4096 * 12  # logits, their log-softmax, the gradient
    monkeypatch.setattr(packed_model, "MAX_LOGITS", 4096 * 63)  # a sixteenth
    turns = estimate(large, USUAL)
    assert turns.total(4) < whole.total(4) - 0.8 * 4 * 4 * 63 * 4096 * 12


def test_a_model_that_cannot_run_without_values_is_estimated_from_coefficients(
    spec: BaseSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    dry = {n: estimate(spec, USUAL).total(n) for n in (1, 4)}

    def fails(*_: Any) -> int:
        raise NotImplementedError("aten::nonzero: meta\nand more")

    monkeypatch.setattr(DryRun, "train", fails)
    found = estimate(spec, USUAL)
    assert found.source == (
        "peak from coefficients, which may be far off, since a dry run failed: "
        "NotImplementedError: aten::nonzero: meta"
    )
    for seats, total in dry.items():
        assert 0.6 < found.total(seats) / total < 1.7
    evaluates = replace(USUAL, eval_batch_size=256, eval_length=64)
    assert estimate(spec, evaluates).total(1) > found.total(1)
    assert estimate(spec, replace(USUAL, gradient_checkpointing=True)).total(1) < found.total(1)


# --- what is chosen -----------------------------------------------------------------------------------


class Known:
    """Passes whose bytes are a function of the seats, with a count of calls."""

    def __init__(self, peak: Callable[[int], int], evaluation: int = 0) -> None:
        self.peak, self.evaluation, self.asked = peak, evaluation, 0

    def train(self, seats: int, batch_size: int, length: int) -> int:
        self.asked += 1
        return self.peak(seats)

    def captured(self, seats: int, batch_size: int, length: int) -> CapturedBytes:
        return CapturedBytes(reserved=self.peak(seats) - 3, beside=8)

    def evaluate(self, seats: int, batch_size: int, length: int) -> int:
        return self.evaluation


def known(base: int, peak: Callable[[int], int], available: float) -> tuple[MemoryEstimate, Known]:
    passes = Known(peak)
    found = MemoryEstimate(
        base=base,
        seat=SeatState(0, 0, 32),
        workload=USUAL,
        passes=passes,
        device=CPU,
        available=available,
        source="",
    )
    return found, passes


def test_seats_fit_below_the_planned_share() -> None:
    def most(base: int, available: float, limit: int = 32) -> int:
        return known(base, lambda seats: 5 * seats, available)[0].max_seats(limit)

    assert most(10, 100.0) == 15  # (85 - 10) / 5
    assert most(10, 99.0) == 14
    assert most(10, 100.0, limit=7) == 7
    assert most(10, 100.0, limit=1) == 1
    assert most(81, 100.0) == 0


@pytest.mark.parametrize(
    "peak",
    [lambda k: 77 * k, lambda k: 5 * k * k, lambda k: 300 + min(200 * k, 900) + 40 * k, lambda k: 700],
    ids=["straight", "convex", "chunks of logits", "flat"],
)
def test_the_number_of_seats_is_found_whatever_the_curve(peak: Callable[[int], int]) -> None:
    for available in range(1000, 9000, 250):
        fitting = [seats for seats in range(1, 65) if 100 + peak(seats) <= 0.85 * available]
        assert known(100, peak, available)[0].max_seats(64) == max(fitting, default=0), available


def test_on_a_cpu_what_fits_is_the_process() -> None:
    """As `top` shows it: tensors, Python and libraries, and gaps between temporary tensors."""
    found = MemoryEstimate(
        base=10,
        seat=SeatState(0, 0, 32),
        workload=USUAL,
        passes=Known(lambda seats: 4 * seats),
        device=CPU,
        available=100.0,
        source="",
        libraries=7,
        gaps=0.5,
    )
    assert (found.total(3), found.transient(3), found.peak(3)) == (10 + 12, 12, 7 + 10 + 12 + 6)
    assert found.max_seats(32) == 11  # 17 + 6 a seat in 85
    plain, _ = known(10, lambda seats: 4 * seats, 100.0)
    assert plain.peak(3) == plain.total(3)
    assert plain.breakdown(3) == ""


def test_captured_passes_keep_their_memory_while_others_need_theirs() -> None:
    """Without graphs the largest of a step and an evaluation counts, with graphs the sum."""
    work = replace(USUAL, eval_batch_size=1, eval_length=8)
    totals = []
    for evaluation, captures in ((5, False), (5, True), (20, True)):
        passes = Known(lambda seats: 100 * seats, evaluation)
        found = MemoryEstimate(
            base=1000,
            seat=SeatState(0, 0, 32),
            workload=work,
            passes=passes,
            device=CPU,
            available=1e9,
            source="",
            captures=captures,
        )
        totals.append((found.total(2), found.reserved(2)))
    assert totals == [(1200, 0), (1000 + 197 + 8, 197), (1000 + 197 + 20, 197)]


def test_captured_passes_are_counted_where_the_machine_and_the_model_have_them(spec: BaseSpec) -> None:
    captures = Machine(True, "a test says so", lambda: pytest.fail("nothing is captured in a dry run"))
    with_graphs, without = (
        estimate(spec, replace(USUAL, graphs=graphs), machine=captures) for graphs in (True, False)
    )
    general = estimate(spec, USUAL, machine=Machine(False, "a test says so"))
    assert [each.reserved(2) > 0 for each in (with_graphs, without, general)] == [True, False, False]
    # What a pass keeps for its backward pass is most of a step, and stays.
    assert 0.3 < with_graphs.reserved(2) / without.transient(2) < 1.1
    assert with_graphs.total(2) > without.total(2)
    assert "GiB stay reserved for captured passes" in with_graphs.breakdown(2)


def test_few_dry_runs_find_the_number_of_seats() -> None:
    found, passes = known(1000, lambda seats: 77 * seats, 6000.0)
    assert found.max_seats(500) == 53
    assert passes.asked <= 6


def test_the_last_seat_to_come_finds_its_buffers_twice() -> None:
    both = SeatState(lora=3, embeddings=5, bits=32)
    assert both.filling(1) == 4 * 3  # the embeddings' buffers grow beside the adapter's
    assert both.filling(3) == 4 * (3 * 8 - 5)
    assert SeatState(lora=3, embeddings=0, bits=32).filling(3) == 4 * 6
    assert SeatState(lora=3, embeddings=5, bits=8).filling(3) == 4 * 10  # buffers of their own


@pytest.mark.slow
def test_as_many_seats_as_fit_then_the_dequantized_base(spec: BaseSpec) -> None:
    plain, resident = estimate(spec, USUAL), estimate(spec, replace(USUAL, resident_weights=True))
    roomy = choose_seats(spec, USUAL, most=3, available=1e12)
    assert (roomy.seats, roomy.resident_weights) == (3, True)
    assert roomy.estimate.total(3) == resident.total(3)
    assert "3 seats: more would not be used" in roomy.reason
    assert "fits beside them and stays in memory" in roomy.reason
    assert roomy.reason.endswith("peak from a dry run")

    # Room for three seats, not for a fourth, nor for the copy.
    narrow = choose_seats(spec, USUAL, most=8, available=(plain.peak(3) + 1) / 0.85)
    assert plain.peak(3) < resident.peak(3) < plain.peak(4)
    assert (narrow.seats, narrow.resident_weights) == (3, False)
    assert narrow.estimate.total(3) == plain.total(3)
    assert "4 would take" in narrow.reason
    assert "does not fit beside them and is made layer by layer" in narrow.reason
    # Room for the copy as well.
    assert choose_seats(spec, USUAL, most=8, available=(resident.peak(3) + 1) / 0.85).resident_weights

    tight = choose_seats(spec, USUAL, most=8, available=plain.base)
    assert (tight.seats, tight.resident_weights) == (1, False)
    assert "1 seat: even one does not fit" in tight.reason


def test_a_number_of_seats_that_was_asked_for_is_kept(spec: BaseSpec) -> None:
    asked = choose_seats(spec, USUAL, most=2, seats=5, available=1e12)
    assert (asked.seats, asked.resident_weights) == (5, True)
    assert "5 seats: as asked" in asked.reason
    assert choose_seats(spec, USUAL, most=2, seats=5, available=1.0).seats == 5


def test_a_base_that_is_not_quantized_has_no_copy(spec: BaseSpec) -> None:
    found = choose_seats(replace_spec(spec, quantization="none"), USUAL, most=2, available=1e12)
    assert not found.resident_weights
    assert "dequantized_weight" not in found.reason


def test_available_memory_is_that_of_the_machine() -> None:
    assert 2**26 < PlannedDevice.here().memory < 2**50
    assert memory.PLANNED_SHARE < 1


# --- what a pack really uses --------------------------------------------------------------------------


WIDE = {"hidden_size": 128, "intermediate_size": 384, "num_hidden_layers": 4, "vocab_size": 1024}
SMALL = {"hidden_size": 64, "intermediate_size": 192, "num_hidden_layers": 4, "vocab_size": 1024}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "config", "seats", "work", "also"),
    [
        pytest.param("llama", WIDE, 2, {}, {}, id="plain"),
        pytest.param("llama", WIDE, 3, {"length": 128}, {"resident": True}, id="resident"),
        pytest.param("llama", WIDE, 2, {"train_embeddings": True}, {}, id="trained embeddings"),
        pytest.param(
            "llama",
            {**WIDE, "tie_word_embeddings": True, "vocab_size": 4096},
            5,
            {"train_embeddings": True, "batch_size": 2, "length": 32},
            {},
            id="trained tied embeddings",
        ),
        pytest.param(
            "llama",
            {**WIDE, "tie_word_embeddings": True},
            3,
            {"trainable_token_indices": (3, 500, 1000), "batch_size": 2},
            {},
            id="trained tokens",
        ),
        pytest.param(
            "llama",
            {**SMALL, "vocab_size": 8192},
            2,
            {"train_embeddings": True, "batch_size": 1, "length": 16, "embedding_optimizer_bits": 8},
            {},
            id="8-bit moments, update dominates",
        ),
        pytest.param(
            "llama",
            {**WIDE, "num_hidden_layers": 8},
            2,
            {"gradient_checkpointing": True, "length": 128},
            {},
            id="checkpointing",
        ),
        pytest.param("qwen2", {**SMALL, "vocab_size": 16384}, 3, {}, {}, id="logits dominate"),
        pytest.param(
            "llama",
            SMALL,
            3,
            {"batch_size": 2, "length": 50, "lora_dropout": 0.1, "train_embeddings": ("lm_head",)},
            {"dtype": "bfloat16"},
            id="bfloat16",
        ),
        pytest.param(
            "llama",
            WIDE,
            6,
            {"lora_r": 12, "lora_dropout": 0.1, "batch_size": 2, "length": 77},
            {"accumulate": 2},
            id="dropout, accumulation, padded attention",
        ),
        pytest.param(
            "llama", WIDE, 6, {"lora_r": 64, "batch_size": 1, "length": 16}, {}, id="filling dominates"
        ),
        pytest.param(
            "llama",
            WIDE,
            4,
            {"batch_size": 1, "length": 16, "eval_batch_size": 16, "eval_length": 128},
            {},
            id="evaluation dominates",
        ),
        pytest.param("mistral", WIDE, 2, {"batch_size": 2, "length": 128}, {}, id="sliding window"),
        pytest.param(
            "gemma2", {**SMALL, "num_hidden_layers": 6}, 1, {"batch_size": 8}, {}, id="two kinds of layers"
        ),
        pytest.param("gpt2", {"n_embd": 128, "n_layer": 4}, 2, {}, {}, id="transposed layers"),
    ],
)
def test_the_estimate_is_near_what_a_pack_uses(
    tiny_model: TINY,
    kind: str,
    config: dict[str, Any],
    seats: int,
    work: dict[str, Any],
    also: dict[str, Any],
) -> None:
    spec = BaseSpec(model=str(tiny_model(kind, **config)), compute_dtype=also.get("dtype", "float32"))
    workload = replace(USUAL, **work, resident_weights=also.get("resident", False))
    accumulate = also.get("accumulate", 1)
    measured = peak_bytes(load_base(spec), workload, seats=seats, accumulate=accumulate)
    said = estimate(spec, workload)
    assert said.source == "peak from a dry run"
    assert said.total(seats) == pytest.approx(measured, rel=0.05)  # 0.99 to 1.01 on torch 2.13


PROCESS = """
import sys
import torch
from lora_runner.config import TrialConfig
from lora_runner.layout.pack_layout import Block
from lora_runner.memory.estimate import estimate
from lora_runner.memory.sizes import Workload
from lora_runner.base.load_model import BaseSpec, load_base
from lora_runner.pack.options import PackOptions
from lora_runner.pack.pack import MicroBatch, Pack
from tests.lora_runner.plain_models import block_of
spec = BaseSpec(model=sys.argv[1])
said = estimate(spec, Workload(lora_r=8, batch_size=4, length=120, resident_weights=True)).peak(4)
pack = Pack(load_base(spec), PackOptions(resident_weights=True))
seats = [pack.new_seat(TrialConfig(learning_rate=1e-3, max_steps=9, lora_r=8, seed=s)) for s in range(4)]
for length in (120, 113, 118):
    ids = torch.randint(2, 8000, (4, length))
    block = block_of(ids, ids)
    pack.train_step(dict.fromkeys(seats, MicroBatch(block, block.num_tokens, block.num_targets)))
peak = next(line for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(said / (1024 * int(peak.split()[1])))
"""


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="asks /proc and glibc")
def test_a_process_takes_about_what_is_said(tiny_model: TINY) -> None:
    folder = tiny_model(
        "llama",
        **{"hidden_size": 256, "intermediate_size": 704, "num_hidden_layers": 16, "vocab_size": 8192},
    )
    done = subprocess.run(
        [sys.executable, "-c", PROCESS, str(folder)], capture_output=True, text=True, timeout=300, check=True
    )
    assert 0.95 < float(done.stdout) < 1.15  # 1.03 with glibc 2.36


@pytest.mark.slow
@pytest.mark.usefixtures("efficient_on_a_cpu")
def test_what_a_pack_keeps_on_cuda_is_counted(tiny_model: TINY, monkeypatch: pytest.MonkeyPatch) -> None:
    """With its attention and Liger's kernels, which are not launched, but whose callers allocate."""
    pytest.importorskip("liger_kernel")
    # Liger replaces classes and functions of transformers' module; this restores them afterwards.
    for name, value in list(vars(modeling_llama).items()):
        monkeypatch.setattr(modeling_llama, name, value)
    spec = BaseSpec(model=str(tiny_model("llama", **{**SMALL, "vocab_size": 256})))
    workload = replace(USUAL, resident_weights=True)

    def dry(device: str) -> int:
        run = DryRun(
            meta_model(spec),
            workload,
            device=torch.device(device),
            dtype=torch.float32,
            quantization=NF4_KIND,
            machine=Machine(False, "a test says so"),
        )
        return run.train(2, USUAL.batch_size, USUAL.length)

    own, on_cuda = dry("cpu"), dry("cuda")
    assert on_cuda < 0.95 * own
    base = load_base(spec)
    assert "Liger" in use_liger(base.model, torch.device("cuda"))
    monkeypatch.setattr(Pack, "_choose_layout", lambda self: ("end_to_end", "its values mean nothing here"))
    monkeypatch.setattr(AttentionImplementation, "function_for", lambda self, module: invariant_attention)
    measured = peak_bytes(base, workload, seats=2, launch=False)
    kept = estimate(spec, workload)
    assert kept.base + 2 * kept.per_seat + on_cuda == pytest.approx(measured, rel=0.02)
