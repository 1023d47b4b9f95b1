"""What a person sees at the end of a run and of a verdict, in a terminal of 80x24."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from results.best import trial_folder
from results.sweep_result import read_study
from tests.sweeps.cli.conftest import run_simulated
from tests.terminal import in_terminal


@pytest.fixture
def finished(folder: Path, pack: Any) -> Path:
    """A run folder whose best trial has an adapter, so that `run` has nothing left to do but its files."""
    sweep, keeper = run_simulated(folder, pack)
    keeper.leave()
    ran = sweep.run_folder
    best = read_study(sweep.study()).best
    assert best is not None
    adapter = trial_folder(best, ran) / "adapter"
    adapter.mkdir(parents=True)
    (adapter / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": 16}))
    save_file({"a": torch.ones(2, 2)}, adapter / "adapter_model.safetensors")
    return ran


def test_a_run_ends_with_its_answer_in_fifteen_lines(finished: Path) -> None:
    work = finished.parent.parent
    command = [sys.executable, "-m", "sweeps", "run", "runs/small"]
    seen = in_terminal(command, cwd=work)
    assert seen.code == 0, seen.text
    start = next(i for i, line in enumerate(seen.lines) if line.startswith("Done: 4 of 4 trials (2 complete"))
    answer = seen.lines[start:]
    assert len(answer) <= 15
    labels = [line[:5].strip() for line in answer if line[:5].strip()]
    assert labels == ["Done:", "Use", "Loss", "Sure?", "Next"]
    assert any(line.startswith("Use   learning_rate ") for line in answer)
    assert any("guideline default" in line and "%)" in line for line in answer)
    assert any(line.startswith("Sure? Not yet: one run per configuration.") for line in answer)
    assert any(line.startswith("Next  sweeps confirm runs/small --no-rows --trials 6") for line in answer)
    assert answer[-2:] == ["      sweeps export runs/small --to trl", "      runs/small/report.html"]
    assert max(map(len, answer)) <= 80


def test_a_verdict_fits_into_80_columns_and_its_rows_too(ran: Path) -> None:
    work = ran.parent.parent
    seen = in_terminal([sys.executable, "-m", "sweeps", "verdict", "runs/small"], cwd=work)
    assert seen.code == 0, seen.text
    assert seen.lines[0].startswith("Use   learning_rate ")
    assert any(line.startswith("Learning rate  best ") for line in seen.lines)
    assert seen.lines[-1] == "      sweeps verdict runs/small --rows"
    assert sum(line.startswith("  2e-4 ") for line in seen.lines) == 1
    rows = in_terminal([sys.executable, "-m", "sweeps", "verdict", "runs/small", "--rows"], cwd=work)
    assert any(line.startswith("scenario.general  ") for line in rows.lines)
    assert max(map(len, [*seen.lines, *rows.lines])) <= 80
