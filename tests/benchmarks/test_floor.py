"""The lower bound counts the operations that torch counts; what a GPU is measured for first is its goals."""

from __future__ import annotations

from argparse import Namespace
from dataclasses import replace
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import floor
from benchmarks.harness.budget import Budget
from benchmarks.harness.report import Report
from benchmarks.peers.packs_and_processes import Comparison, Side
from benchmarks.peers.peft_trial import PeftTrial
from benchmarks.step import Bench
from benchmarks.training_steps import goals
from benchmarks.training_steps.case import Case, PackTrials
from benchmarks.training_steps.kernel_parts import (
    PRODUCTS,
)
from benchmarks.training_steps.lower_bound import Ceilings, LowerBound
from benchmarks.training_steps.random_llama import SHAPES, random_model
from benchmarks.training_steps.step_profile import Shares
from lora_runner.fused.fused_passes import FusedPasses
from tests.benchmarks.cases import CASE


@pytest.fixture
def trials() -> PackTrials:
    found = PackTrials(CASE, 2, CASE.new_pack())
    found.pack.train_step(found.batches())
    return found


@pytest.mark.parametrize("train_embeddings", [False, True])
def test_the_lower_bound_is_what_torch_counts_in_a_model_that_is_not_quantized(
    train_embeddings: bool,
) -> None:
    """Of one sequence, which is neither padded nor predicts its first token."""
    case = replace(CASE, train_embeddings=train_embeddings)
    model = random_model(case.shape, case.device, case.dtype)
    model.set_attn_implementation("eager")
    for name, module in list(model.named_modules()):
        if hasattr(getattr(module, "weight", None), "quant_state"):
            plain = torch.nn.Linear(module.in_features, module.out_features, bias=False)
            model.set_submodule(name, plain.requires_grad_(False))
    rows = [case.sequences(0)[0]]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Case, "sequences", lambda self, trial, equal=False: rows)
        least = LowerBound.of(case, 1)
        peft = PeftTrial(case, model)
        with FlopCounterMode(display=False) as counter:
            peft.pass_(peft.batch(rows))
    # Written out, attention is 6 products of whole squares; the kernel's 7 are of halves. And peft's output
    # layer serves the last position too.
    last = (6 if train_embeddings else 4) * case.shape.vocabulary * case.shape.hidden
    expected = least.operations + (12 / 7 - 1) * least.attention + last
    assert counter.get_total_flops() == pytest.approx(expected, rel=1e-4)  # older rotary angles are a product


def test_the_lower_bound_is_no_less_than_products_weights_or_update() -> None:
    least = LowerBound.of(CASE, 2)
    slow, fast = 1e6, 1e12
    assert least.seconds(Ceilings(copies=fast, products=slow)) == pytest.approx(
        least.operations / slow, rel=1e-3
    )
    bytes_alone = least.weight_bytes + least.update_bytes
    assert least.seconds(Ceilings(copies=slow, products=fast)) == pytest.approx(bytes_alone / slow)
    assert LowerBound.of(CASE, 4).update_bytes == 2 * least.update_bytes
    assert LowerBound.of(CASE, 4).weight_bytes == least.weight_bytes


# --- what is measured, in which order, and what the table says ------------------------------------------


FOUND = floor.Found("general", 0, 0.5, 0.1, Shares(wall=0.6, busy=0.3))
EMPTY_PACK = SimpleNamespace(
    release_memory=lambda: None,
    resume_capturing=lambda: None,
    base=SimpleNamespace(spec=SimpleNamespace(model="tiny")),
    path=SimpleNamespace(
        is_fused=True, describe=lambda: ["fused: the test says so", "attention: in three launches"]
    ),
    captures=lambda: (1, "out of memory"),
)


def floor_of(seconds: float | None = None) -> floor.Floor:
    report = Report(name="nothing", fixed="", command="")
    return floor.Floor(report, Ceilings(copies=1e9, products=1e9), Budget(seconds), repetitions=1)


def rows_of(of: floor.Floor, title: str) -> list[list[str]]:
    return next(rows for name, _, rows in of.report.tables if name == title)


def given(**change: Any) -> Namespace:
    return Namespace(**{"shape": None, "seats": None, "ways": None, "quick": False} | change)


def test_on_a_gpu_the_goals_are_measured_first() -> None:
    on_cuda = replace(CASE, device=torch.device("cuda"))
    order = [(of.case, seats) for of in floor.plans(given(), on_cuda) for seats in of.seats]
    first = [(of.shape.name, seats) for of, seats in order[:6]]
    assert first == [
        *(("llama-3.1-8b", seats) for seats in (8, 1, 32)),
        *(("llama-3.2-1b", seats) for seats in (1, 8, 32)),
    ]
    assert {*first} >= {*goals.STEP_MS}
    assert all(of.resident and of.graphs and of.fused for of, _ in order[:6])
    rest = [(of.resident, of.graphs, of.fused, of.shape.name, seats) for of, seats in order[6:]]
    assert rest == [
        (True, False, True, "llama-3.1-8b", 8),
        (True, False, True, "llama-3.1-8b", 1),
        (True, False, True, "llama-3.2-1b", 1),
        (True, False, True, "llama-3.2-1b", 8),
        (True, False, False, "llama-3.1-8b", 8),
        (True, False, False, "llama-3.2-1b", 1),
        (False, True, True, "llama-3.1-8b", 8),
        (False, True, True, "llama-3.2-1b", 1),
    ]


def test_only_what_was_asked_for_is_measured() -> None:
    asked = given(shape=["demo"], seats=[2], ways=["general"])
    (planned,) = floor.plans(asked, replace(CASE, device=torch.device("cuda")))
    assert (planned.case.shape.name, planned.case.fused, planned.seats) == ("demo", False, (2,))


def test_what_no_longer_fits_in_time_is_left_out_and_the_table_says_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def measure(case: Case, pack: Any, num_seats: int, *_: Any) -> floor.Found:
        measured.append(num_seats)
        return FOUND

    measured: list[int] = []
    monkeypatch.setattr(floor, "measure_pack", measure)
    monkeypatch.setattr(Case, "new_pack", lambda case: EMPTY_PACK)
    of = floor_of(seconds=60.0)
    of.measure(floor.Planned(CASE, (8,)), CASE.device)
    monkeypatch.setattr(Budget, "spent", 61.0)
    of.measure(floor.Planned(CASE, (1, 32)), CASE.device)
    assert measured == [8]
    assert [(row[1], row[4]) for row in rows_of(of, floor.SUMMARY)] == [
        *(("8", "general"), ("1", "left out, 60 s were over"), ("32", "left out, 60 s were over"))
    ]


def test_a_pack_that_fails_or_does_not_fit_leaves_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    def measure(case: Case, pack: Any, num_seats: int, *_: Any) -> floor.Found:
        if num_seats == 32:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        if num_seats == 8:
            raise RuntimeError("an illegal\ninstruction")
        return FOUND

    monkeypatch.setattr(floor, "measure_pack", measure)
    of = floor_of()
    of.measure(floor.Planned(CASE, (32, 8, 1)), CASE.device)
    assert [(row[1], row[4]) for row in rows_of(of, floor.SUMMARY)] == [
        *(("32", "did not fit"), ("8", "failed"), ("1", "general"))
    ]
    assert [note.removeprefix(CASE.title) for note in of.report.notes[:2]] == [
        *(", 32 seats did not fit.", ", 8 seats failed: an illegal")
    ]


def test_every_number_of_trials_of_a_pack_is_captured(monkeypatch: pytest.MonkeyPatch) -> None:
    """A pack that gives back the memory of earlier trials stops capturing, until it is told to resume."""
    pack = CASE.new_pack()
    pack._passes = FusedPasses(Mock(), pack.context, None, lambda: (None, None), Mock(), "")
    captures = []

    def watched(found: Any) -> Any:
        return lambda *_, **__: captures.append(pack.captures()) or found

    monkeypatch.setattr(Case, "new_pack", lambda case: pack)
    monkeypatch.setattr(floor, "measure_pack", watched(FOUND))
    floor_of().measure(floor.Planned(CASE, (8, 1, 32)), CASE.device)
    side = Side(name="pack", at_once=8, step=1.0, tokens=1.0, device_bytes=0, is_peer=False)
    monkeypatch.setattr(Comparison, "_pack_side", watched(side))
    report = Report(name="nothing", fixed="", command="")
    Comparison(report, CASE, steps=1, trial_steps=1, budget=Budget(None)).packs((8, 32), resident=True)
    bench = Bench(report, CASE, 1)
    bench.pack = pack
    monkeypatch.setattr(bench, "_pack_of", watched(None))
    bench.pack_side(CASE, (8, 32))
    assert captures == [(0, "")] * 7


def test_goals_stand_beside_what_was_found_first(monkeypatch: pytest.MonkeyPatch) -> None:
    def measure(case: Case, pack: Any, num_seats: int, *_: Any) -> floor.Found:
        busy = 0.097 if case.graphs else 0.05
        return floor.Found("fused", 1, 0.118 if case.graphs else 0.5, 0.084, Shares(wall=0.1, busy=busy))

    monkeypatch.setattr(floor, "measure_pack", measure)
    monkeypatch.setattr(floor, "forget", lambda device: None)
    monkeypatch.setattr(Case, "new_pack", lambda case: EMPTY_PACK)
    of = floor_of()
    on_cuda = replace(CASE, shape=SHAPES["llama-3.1-8b"], device=torch.device("cuda"))
    of.measure(floor.Planned(on_cuda, (8,)), CASE.device)
    of.measure(floor.Planned(replace(on_cuda, graphs=False), (8, 1)), CASE.device)
    assert rows_of(of, "Goals on an H200") == [
        ["step of 8 trials, 8B, ms", "517", "at most 120", "118", "yes"],
        ["step of 1 trial, 8B, ms", "309", "at most 45", "500", "no"],
        ["step of 1 trial, 1B, ms", "167", "at most 12", "-", "-"],
        ["step of 8 trials, 1B, ms", "-", "at most 25", "-", "-"],
        ["device idle in the step of 8 trials, 8B, %", "76", "at most 5", "3", "yes"],
    ]
    assert [row[3] for row in rows_of(of, floor.SUMMARY)] == ["1", "no", "no"]
    assert of.report.notes == [
        "tiny, fused: the test says so; attention: in three launches. No graphs: out of memory."
    ]


@pytest.mark.slow
def test_the_step_of_a_pack_is_measured(trials: PackTrials) -> None:
    found = floor.measure_pack(CASE, trials.pack, 2, Ceilings(copies=1e12, products=1e12), repetitions=2)
    assert (found.path, found.captured) == ("general", 0)
    assert "cpu" in trials.pack.captures()[1]
    assert 0 < found.least < found.step
    assert found.shares.seconds[PRODUCTS] > 0
