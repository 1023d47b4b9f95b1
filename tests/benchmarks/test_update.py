"""The update is measured at the sizes that tell most first, and the table says what was left out."""

from __future__ import annotations

import pytest
import torch

from benchmarks import update
from benchmarks.harness.budget import Budget
from benchmarks.harness.report import Report
from benchmarks.update import Updates, plan
from tests.benchmarks.cases import CASE

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def _suffix(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(update.SUFFIXES, CASE.shape.name, "_tiny")


def updates_of(seconds: float | None) -> Updates:
    return Updates(Report(name="nothing", fixed="", command=""), CPU, Budget(seconds))


def test_a_gpu_is_measured_first_at_eight_trials_of_an_8b() -> None:
    planned = [(shape.name, number) for shape, number, _ in plan(torch.device("cuda"), quick=False)]
    assert planned[:4] == [
        *(("llama-3.1-8b", 8), ("llama-3.1-8b", 1), ("llama-3.2-1b", 8), ("llama-3.2-1b", 1))
    ]
    assert sorted(number for name, number in planned if name == "llama-3.1-8b") == [1, 2, 4, 8, 16, 32]
    assert len({*planned}) == len(planned)


def test_rows_are_sorted_and_the_figures_are_those_of_eight_trials() -> None:
    updates = updates_of(None)
    for number in (8, 1):
        updates.measure(CASE.shape, number, 1)
    ((_, columns, rows),) = updates.report.tables
    assert [row[0] for row in rows] == ["1", "8"]
    assert all(len(row) == len(columns) for row in rows)
    share = float(rows[1][columns.index("share of copy bandwidth")])
    assert updates.report.figures["update_copy_bandwidth_share_tiny"] == pytest.approx(share, rel=0.01)
    pack, fused = (float(rows[1][columns.index(f"{name}, ms")]) for name in ("pack", "torch fused"))
    assert updates.report.figures["update_time_ratio_fused_adamw_tiny"] == pytest.approx(
        fused / pack, rel=0.02
    )


def test_what_does_not_fit_in_time_or_memory_is_left_out_and_the_table_says_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    updates = updates_of(20.0)
    monkeypatch.setattr(update, "free_bytes", lambda device: 2**30)
    updates.measure(CASE.shape, 10**6, 1)
    monkeypatch.setattr(Budget, "spent", 21.0)
    updates.measure(CASE.shape, 2, 1)
    ((_, columns, rows),) = updates.report.tables
    assert [(row[0], row[2]) for row in rows] == [
        ("2", "left out, 20 s were over"),
        ("1000000", "left out, 1 GiB are free"),
    ]
    assert all(len(row) == len(columns) for row in rows)
    assert updates.report.figures == {}
