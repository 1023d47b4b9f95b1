"""Packs and processes both train; if one side fails, the other's figures remain."""

from __future__ import annotations

import json
from argparse import Namespace
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch

from benchmarks import side_by_side
from benchmarks.harness.report import Report
from benchmarks.peers.peft_processes import PeftProcesses, write_base
from benchmarks.side_by_side import PHASES, Side, compare, peft_sides, tell, tokens_a_step
from benchmarks.training_steps.case import Case, PackTrials
from tests.benchmarks.cases import CASE


def side(**change: Any) -> Side:
    usual: dict[str, Any] = {
        "name": "any",
        "at_once": 4,
        "step": 0.5,
        "tokens": 1000.0,
        "start": 10.0,
        "device_bytes": 0,
        "per_trial": False,
    }
    return Side(**usual | change)


def test_a_pack_starts_once_and_a_process_for_every_trial() -> None:
    # 10 trials, 4 at once: 3 rounds of 100 steps of half a second.
    assert side().sweep_seconds(10, 100) == 3 * 50 + 10
    assert side(per_trial=True).sweep_seconds(10, 100) == 3 * (50 + 10)
    assert side().trials_per_hour(10, 100) == 3600 * 10 / 160


def test_the_ratio_is_that_of_the_best() -> None:
    report = Report(name="nothing", fixed="", command="")
    theirs = [side(per_trial=True, at_once=1, step=0.1), side(per_trial=True, at_once=2, step=0.15)]
    ours = [side(at_once=8, step=0.4), side(at_once=16, step=0.6)]
    tell(report, [*theirs, *ours], 300)
    figures = report.figures
    best, other = 64 * 3600 / (4 * 180 + 10), 64 * 3600 / (32 * 55)
    assert figures["trials_per_hour_ratio"] == pytest.approx(best / other)
    assert figures["trials_per_hour_ratio_to_one_at_a_time"] == pytest.approx(best * 64 * 40 / 64 / 3600)
    assert (figures["processes_that_fit"], figures["seats_that_fit"]) == (2, 16)


@pytest.mark.slow
def test_two_processes_train_what_two_seats_train(tmp_path: Path) -> None:
    write_base(CASE, tmp_path / "base")
    sides = peft_sides(CASE, tmp_path / "base", tmp_path / "meeting", 2, steps=3)
    assert [one.name for one in sides] == ["peft", "peft, gradient checkpointing"]
    found = [json.loads((tmp_path / "meeting" / f"trial-{i}.found.json").read_text()) for i in (0, 1)]
    for one, phase in zip(sides, PHASES, strict=True):
        times = [seconds for process in found for seconds in process["phases"][phase]["step_seconds"]]
        assert len(times) == 6
        assert one.step == pytest.approx(sum(times) / 6)
        assert one.start == max(process["start_seconds"] + process["load_seconds"] for process in found)
        rows = [row for trial in range(6) for row in CASE.sequences(trial)]
        assert one.tokens == pytest.approx(sum(map(len, rows)) / 3) == tokens_a_step(CASE, 2, 3)


@pytest.mark.slow
def test_leaving_ends_all_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of which one waits for a word that never comes."""
    write_base(CASE, tmp_path / "base")

    def meet(self: PeftProcesses, word: str) -> None:
        ready(self, word)
        raise TimeoutError("process 0 did not say ready")

    ready = PeftProcesses.meet
    monkeypatch.setattr(PeftProcesses, "meet", meet)
    with pytest.raises(TimeoutError):
        peft_sides(CASE, tmp_path / "base", tmp_path / "meeting", 1, steps=1)
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
        seat(self, case, num_seats, pack)

    monkeypatch.setattr(side_by_side, "write_base", broken)
    monkeypatch.setattr(PackTrials, "__init__", full)
    report = Report(name="nothing", fixed="", command="")
    given = Namespace(processes=[1, 2], seats=[1, 2, 3, 4], trial_steps=300, save=False)
    compare(report, CASE, given, 2)
    assert report.notes[0].startswith("1 processes at once: process 0 ended with 1: ")
    assert report.notes[1:] == ["a pack of 3 did not fit.", "a pack of 3, dequantised once did not fit."]
    ((_, _, rows),) = report.tables
    assert [row[:2] for row in rows] == [
        ["pack", "1"],
        ["pack", "2"],
        ["pack, dequantised once", "1"],
        ["pack, dequantised once", "2"],
    ]
    assert report.figures == {"seats_that_fit": 2}
    assert not folders[0].parent.exists()
