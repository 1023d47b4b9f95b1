"""A short round of what `make chaos` does for long."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from lora_runner.config import TrialConfig
from tests.chaos.rehearsal import KINDS, expected, kind_of

ROOT = Path(__file__).parent.parent.parent


@pytest.mark.slow
def test_a_sweep_whose_processes_are_killed_ends_as_if_nothing_had_happened() -> None:
    command = [sys.executable, "-m", "tests.chaos", "--kills", "6", "--seed", "4", "--trials", "12"]
    done = subprocess.run(
        [*command, "--no-cluster", "--pause", "1", "6"],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=800,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    said = dict(line.split(": ", 1) for line in done.stdout.splitlines() if ": " in line)
    assert (said["kills"], said["lost"], said["twice"]) == ("6", "0", "0")
    assert (said["left_running"], said["differing"]) == ("0", "0")
    assert int(said["trials_checked"]) >= 12


def test_trials_of_every_kind_are_drawn_often_enough_to_matter() -> None:
    configs = [
        TrialConfig(learning_rate=1e-3 + i * 1e-6, max_steps=40, per_device_train_batch_size=8)
        for i in range(400)
    ]
    kinds = {kind_of(config) for config in configs}
    assert kinds == {*KINDS.values(), "plain"}
    plain = next(config for config in configs if kind_of(config) == "plain")
    assert len(expected(plain).reports) == 5
    assert expected(plain) != expected(configs[-1])
