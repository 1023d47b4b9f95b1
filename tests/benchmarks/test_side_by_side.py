"""Packs and processes both train; the best number of processes is the peer; no side loses the other."""

from __future__ import annotations

import json
import os
from argparse import Namespace
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch

from benchmarks import side_by_side
from benchmarks.harness.budget import Budget
from benchmarks.harness.report import Report
from benchmarks.peers import packs_and_processes
from benchmarks.peers.packs_and_processes import SWEEP, Comparison, Side, tokens_a_step
from benchmarks.peers.peft_process import PHASES
from benchmarks.peers.peft_processes import PeftProcesses, write_base
from benchmarks.side_by_side import compare
from benchmarks.training_steps.case import Case, PackTrials
from tests.benchmarks.cases import CASE


def comparison(seconds: float | None = None, steps: int = 3) -> Comparison:
    report = Report(name="nothing", fixed="", command="")
    return Comparison(report, CASE, steps=steps, trial_steps=300, budget=Budget(seconds))


def side(**change: Any) -> Side:
    usual: dict[str, Any] = {
        "name": "any",
        "at_once": 4,
        "step": 0.5,
        "tokens": 1000.0,
        "device_bytes": 0,
        "is_peer": False,
    }
    return Side(**usual | change)


def rows_of(of: Comparison) -> list[list[str]]:
    ((_, _, rows),) = of.report.tables
    return rows


def test_a_pack_starts_once_and_a_process_for_every_trial() -> None:
    rounds = SWEEP / 4
    assert side().trials_per_hour(100, 10.0) == pytest.approx(3600 * SWEEP / (rounds * 50 + 10))
    assert side(is_peer=True).trials_per_hour(100, 10.0) == pytest.approx(3600 * SWEEP / (rounds * 60))


def test_every_number_at_once_has_whole_rounds() -> None:
    assert [SWEEP % number for number in (1, 2, 4, 8, 12, 32)] == [0] * 6


def test_the_ratio_is_to_the_best_number_of_processes() -> None:
    of = comparison()
    of.starts = {1: 10.0}
    of.sides = [
        side(at_once=8, step=0.4),
        side(at_once=16, step=0.6),
        side(is_peer=True, at_once=1, step=0.1),
        side(is_peer=True, at_once=2, step=0.15),
        side(is_peer=True, at_once=4, step=0.9),
    ]
    of.tell()
    best = 96 * 3600 / (6 * 180 + 10)
    one, two, four = (96 * 3600 / seconds for seconds in (96 * 40, 48 * 55, 24 * 280))
    figures = of.report.figures
    assert figures["best_number_of_processes"] == 2
    assert figures["trials_per_hour_ratio"] == pytest.approx(best / two)
    assert figures["trials_per_hour_ratio_to_one_at_a_time"] == pytest.approx(best / one)
    assert (figures["processes_that_fit"], figures["seats_that_fit"]) == (4, 16)
    assert [row[-1] for row in rows_of(of)][2:] == [f"{one / two:.3g}", "1", f"{four / two:.3g}"]


def test_a_start_lies_between_those_that_were_measured() -> None:
    of = comparison()
    of.starts = {1: 30.0, 7: 90.0}
    assert of.start(side(is_peer=True, at_once=4)) == pytest.approx(60.0)
    assert of.start(side(is_peer=True, at_once=12)) == pytest.approx(90.0)
    assert of.start(side(at_once=32)) == pytest.approx(30.0)


def test_what_does_not_fit_in_time_or_cores_is_left_out_and_the_table_says_so(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {*range(8)})
    of = comparison(seconds=60.0)
    monkeypatch.setattr(Budget, "spent", 61.0)
    of.packs([32], resident=True)
    of.peers([12, 8], tmp_path / "base", tmp_path / "meeting")
    of.tell()
    assert [row[:3] for row in rows_of(of)] == [
        ["pack, dequantized once", "32", "left out, 60 s were over"],
        ["peft", "12", "left out, 8 cores"],
        ["peft", "8", "left out, 60 s were over"],
    ]


def test_processes_are_not_started_when_there_is_no_time_to_load_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {*range(16)})
    monkeypatch.setattr(Budget, "spent", 61.0)
    of = comparison(seconds=100.0)
    of.starts = {1: 40.0}
    assert of._refusal(8, loaded=1) == "left out, 100 s were over"
    assert of._refusal(4, loaded=8) == ""


def test_processes_that_do_not_fit_in_memory_are_not_started(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {*range(16)})
    monkeypatch.setattr(packs_and_processes, "torch_memory", lambda case: 80 * 2**30)
    of = comparison()
    of.case = replace(CASE, device=torch.device("cuda"))
    sizes = {"checkpointing": 9 * 2**30, "plain": 12 * 2**30}
    of.sides = [side(is_peer=True, at_once=1, device_bytes=size) for size in sizes.values()]
    assert of._refusal(8, 1) == ""
    assert of._refusal(12, 1) == "does not fit in 80 GiB"


def test_after_a_number_that_fails_smaller_ones_are_measured(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """With processes of their own, since the others may be gone."""

    def sides(self: Comparison, processes: PeftProcesses, at_once: int) -> None:
        seen.append((at_once, processes))
        if at_once == 8:
            raise RuntimeError("process 3 ended with 1: CUDA error: out of memory")
        self.sides.append(side(is_peer=True, at_once=at_once))
        self.tell()

    seen: list[tuple[int, PeftProcesses]] = []
    monkeypatch.setattr(Comparison, "_peer_sides", sides)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {*range(16)})
    of = comparison()
    of.peers([1, 8, 4, 12, 2], tmp_path / "base", tmp_path / "meeting")
    assert [number for number, _ in seen] == [1, 8, 4, 2]
    assert seen[0][1] is seen[1][1] is not seen[2][1] is seen[3][1]
    assert [row[1:3] for row in rows_of(of)[3:]] == [["8", "failed"], ["12", "left out, 8 at once failed"]]


@pytest.mark.slow
def test_two_processes_train_what_two_seats_train(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And one of them alone again, without loading."""
    starts: list[int] = []
    start = PeftProcesses.start
    monkeypatch.setattr(
        PeftProcesses, "start", lambda self, more: (starts.append(more), start(self, more))[1]
    )
    write_base(CASE, tmp_path / "base")
    of = comparison(steps=3)
    of.peers([2, 1], tmp_path / "base", tmp_path / "meeting")
    assert of.report.notes == []
    assert starts == [2]
    assert [(one.name, one.at_once) for one in of.sides] == [
        ("peft", 2),
        ("peft, gradient checkpointing", 2),
        ("peft", 1),
        ("peft, gradient checkpointing", 1),
    ]
    found = [json.loads((tmp_path / "meeting" / f"found-0-{i}").read_text()) for i in (0, 1)]
    for one, phase in zip(of.sides, PHASES, strict=False):
        times = [seconds for process in found for seconds in process[phase]["step_seconds"]]
        assert len(times) == 6
        assert one.step == pytest.approx(sum(times) / 6)
        rows = [row for trial in range(6) for row in CASE.sequences(trial)]
        assert one.tokens == pytest.approx(sum(map(len, rows)) / 3) == tokens_a_step(CASE, 2, 3)
    loaded = [json.loads((tmp_path / "meeting" / f"loaded-{i}").read_text()) for i in (0, 1)]
    assert of.starts == {2: max(times["start_seconds"] + times["load_seconds"] for times in loaded)}
    assert not (tmp_path / "meeting" / "found-1-1").exists()


@pytest.mark.slow
def test_leaving_ends_all_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of which one waits for a word that never comes."""
    write_base(CASE, tmp_path / "base")

    def train(self: PeftProcesses, at_once: int) -> Any:
        raise TimeoutError("process 0 did not say ready")

    monkeypatch.setattr(PeftProcesses, "train", train)
    of = comparison()
    of.peers([1, 1], tmp_path / "base", tmp_path / "meeting")
    assert of.report.notes == ["1 processes at once: process 0 did not say ready"]
    assert [row[2] for row in rows_of(of)] == ["failed", "left out, 1 at once failed"]
    assert not [child for child in psutil.Process().children() if "benchmarks" in " ".join(child.cmdline())]


@pytest.mark.slow
def test_a_side_that_fails_leaves_the_others_figures(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    folders = []

    def broken(case: Case, folder: Path) -> None:
        folders.append(folder)
        folder.mkdir()
        (folder / "config.json").write_text("{}")

    seat = PackTrials.__init__

    def full(self: PackTrials, case: Case, num_seats: int, pack: Any) -> None:
        if num_seats == 3:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        if num_seats == 5:
            raise RuntimeError("a kernel\nfailed")
        seat(self, case, num_seats, pack)

    monkeypatch.setattr(side_by_side, "write_base", broken)
    monkeypatch.setattr(PackTrials, "__init__", full)
    of = comparison(steps=2)
    compare(of, Namespace(processes=[1, 2], seats=[8, 3, 5, 2], save=False))
    assert of.report.notes[0].startswith("1 processes at once: process 0 ended with 1: ")
    assert of.report.notes[1:] == ["A pack, dequantized once of 5 failed: a kernel"]
    assert [row[:2] for row in rows_of(of)[:3]] == [
        ["pack, dequantized once", "8"],
        ["pack, dequantized once", "2"],
        ["pack", "8"],
    ]
    assert [row[:3] for row in rows_of(of)[3:]] == [
        ["peft", "1", "failed"],
        ["peft", "2", "left out, 1 at once failed"],
        ["pack, dequantized once", "3", "did not fit"],
        ["pack, dequantized once", "5", "failed"],
    ]
    assert of.report.figures == {"seats_that_fit": 8}
    assert not folders[0].parent.exists()
