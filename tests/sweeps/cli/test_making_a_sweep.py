"""`sweeps init` and `sweeps plan` as a person sees them in a terminal of 80x24."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.sweeps.cli.calling import Call, listing
from tests.terminal import Seen, in_terminal


def sweeps(folder: Path, *arguments: str) -> Seen:
    return in_terminal([sys.executable, "-m", "sweeps", *arguments], cwd=folder)


@pytest.mark.slow
def test_a_plan_fits_one_screen_and_says_first_whether_it_fits(folder: Path) -> None:
    seen = sweeps(folder, "plan", "s.yaml")
    assert seen.code == 0, seen.text
    assert len(seen.lines) <= 24, seen.text
    assert [line.split()[0] for line in seen.lines[:4] if line] == ["small", "Fits", "Device"]
    assert seen.lines[-1] == "More: sweeps plan s.yaml --details"


def test_an_error_is_broken_between_words(folder: Path) -> None:
    seen = sweeps(folder, "plan", "s.yaml", "--set", "search.pruner=halving")
    assert seen.code == 2
    assert len(seen.lines) > 1
    assert " ".join(seen.lines).endswith("Known: successive_halving, hyperband, median, none, freeze_thaw.")
    assert all(line == line.strip() and len(line) <= 80 for line in seen.lines)


@pytest.mark.slow
def test_init_says_what_it_found_and_keeps_what_is_there(call: Call, folder: Path) -> None:
    path = folder / "new.yaml"
    given = ("init", path, "--model", folder / "model", "--train", folder / "data.jsonl")
    answer = call(*given, "--name", "mine", "--trials", "3")
    assert answer.code == 0, answer.err
    lines = answer.out.splitlines()
    assert "Data    60 records (prompt_completion), 12 of them held out" in lines
    assert "Budget  3 trials of 30 steps" in lines
    assert lines[-1] == f"Next    sweeps plan {path}"
    before = listing(folder)
    assert before["new.yaml"] is not None
    again = call(*given)
    assert again.code == 2
    assert "it is kept" in again.err
    assert "--overwrite" in again.err
    assert listing(folder) == before
    missing = call("init", folder / "other.yaml", "--model", "./gone", "--train", "gone.jsonl")
    assert (missing.code, missing.out) == (2, "")
    assert [line.partition(":")[0] for line in missing.err.splitlines()[1:]] == ["model", "data.train"]
    assert listing(folder) == before
