"""The step benchmark measures both sides on the same trials, and continues after a size that does not fit."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from benchmarks import step
from benchmarks.harness.budget import Budget
from benchmarks.harness.report import Report
from benchmarks.step import Bench
from benchmarks.training_steps import step_measurements
from benchmarks.training_steps.case import Case, PackTrials
from tests.benchmarks.cases import CASE


def test_a_micro_batch_depends_on_its_trial_only() -> None:
    other = replace(CASE, rank=64, train_embeddings=True)
    assert CASE.sequences(3) == other.sequences(3) != CASE.sequences(4)
    assert [len(row) for row in CASE.sequences(3, equal=True)] == [12] * 4
    assert max(len(row) for trial in range(20) for row in CASE.sequences(trial)) == 12
    assert CASE.num_real(2) == sum(len(row) for trial in (0, 1) for row in CASE.sequences(trial))


@pytest.mark.slow
@pytest.mark.parametrize("train_embeddings", [False, True])
def test_what_does_not_fit_is_noted_and_the_rest_is_reported(
    monkeypatch: pytest.MonkeyPatch, train_embeddings: bool
) -> None:
    alone = step_measurements.peft_alone
    new_seats = PackTrials.__init__

    def full(self: PackTrials, *given: Any) -> None:
        if given[1] == 4:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        new_seats(self, *given)

    def full_too(one: Case, peft: Any, repetitions: int) -> Any:
        if not peft.model.get_base_model().model.gradient_checkpointing:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return alone(one, peft, repetitions)

    monkeypatch.setattr(PackTrials, "__init__", full)
    monkeypatch.setattr(step, "peft_alone", full_too)
    report, one = (
        Report(name="nothing", fixed="", command=""),
        replace(CASE, train_embeddings=train_embeddings),
    )
    bench = Bench(report, one, 2)
    peft = bench.peft_side([one])
    packs = bench.pack_side(one, [1, 3, 4, 2])
    bench.tell(one, {on: measured for (_, on), measured in peft.items()}, packs, "_tiny")
    assert [note.removeprefix(f"{one.title}") for note in report.notes] == [
        ", peft did not fit.",
        ": a pack of 4 did not fit.",
    ]
    ((title, columns, rows),) = report.tables
    assert title == one.title
    assert [row[:2] for row in rows] == [["peft, checkpointing", "1"], ["pack", "1"], ["pack", "3"]]
    assert report.figures["memory_model_error_pct_tiny"] < 10
    assert report.figures["pack_step_ratio_k3_tiny"] > 0
    three = dict(zip(columns, rows[-1], strict=True))
    seconds = float(three["step ms"]) / 1e3
    assert float(three["tokens/s in all"]) == pytest.approx(one.num_real(3) / seconds, rel=0.02)
    assert float(three["tokens/s a trial"]) == pytest.approx(one.num_real(3) / seconds / 3, rel=0.02)


@pytest.mark.slow
def test_peft_can_turn_checkpointing_off_again() -> None:
    """Otherwise peft would do more work than it has to."""
    bench = Bench(Report(name="nothing", fixed="", command=""), CASE, 1)
    trials = PackTrials(bench.case, 1, bench.case.new_pack())
    before = step_measurements.count_operations(trials, bench.peft)["peft"]
    bench.peft.checkpoint(True)
    assert step_measurements.count_operations(trials, bench.peft)["peft"] > before
    bench.peft.checkpoint(False)
    assert step_measurements.count_operations(trials, bench.peft)["peft"] == before


@pytest.mark.slow
def test_every_trial_comes_in_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    """A step of the pack counts once whatever its trials; each of them counts for itself."""
    bench = Bench(Report(name="nothing", fixed="", command=""), CASE, 2)
    monkeypatch.setattr(step_measurements, "seconds", lambda run, device: (run(), 1.0)[1])
    for seats in (1, 5):
        trials = PackTrials(bench.case, seats, bench.case.new_pack())
        assert step_measurements.step_times(trials, bench.peft, repetitions=2) == (1.0, seats)


def test_no_side_is_measured_once_the_time_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    report = Report(name="nothing", fixed="", command="")
    budget = Budget(30.0)
    bench = Bench(report, CASE, 1, budget)
    monkeypatch.setattr(Budget, "spent", 31.0)
    assert bench.peft_side([CASE]) == {}
    bench.pack = CASE.new_pack()
    assert bench.pack_side(CASE, [1, 2]) == {}
    assert [note.removeprefix(CASE.title) for note in report.notes] == [
        ", peft: left out, 30 s were over.",
        ", peft with gradient checkpointing: left out, 30 s were over.",
        ": a pack of 1, left out, 30 s were over.",
    ]
