"""A short round of `make chaos`."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState, create_trial

from lora_runner.config import TrialConfig
from tests.chaos.checking import check_sweep
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


@pytest.mark.parametrize(
    ("states", "retries", "wrong"),
    [
        # States of trials of one configuration, which of them say that they try an earlier one again, and
        # what is counted: (lost, twice).
        ("FFC", {1: 0, 2: 0}, (0, 0)),
        ("FC", {}, (0, 1)),
        ("CC", {1: 0}, (0, 2)),
        ("FCC", {1: 0, 2: 0}, (0, 2)),
        ("FF", {1: 0}, (1, 0)),
    ],
)
def test_a_failed_configuration_may_be_tried_again_until_one_does_not_fail(
    tmp_path: Path, states: str, retries: dict[int, int], wrong: tuple[int, int]
) -> None:
    config = next(
        config
        for i in range(400)
        if kind_of(config := TrialConfig(learning_rate=1e-3 + i * 1e-6, max_steps=40)) == "plain"
    )
    study = optuna.create_study()
    for number, letter in enumerate(states):
        state = TrialState.COMPLETE if letter == "C" else TrialState.FAIL
        attributes = {
            "config": config.to_dict(),
            "config_hash": config.hash(),
            "folder": f"trials/{number}",
            "outcome": "complete" if letter == "C" else "failed",
            "stop_reason": "used its full budget" if letter == "C" else "lost its worker 3 times, 3 alone",
        } | ({"retry_of": retries[number]} if number in retries else {})
        reports = expected(config).reports if letter == "C" else {20: expected(config).reports[20]}
        if letter == "C":
            (tmp_path / f"trials/{number}").mkdir(parents=True)
            (tmp_path / f"trials/{number}/result.json").write_text(f'{{"eval_loss": {reports[100]!r}}}')
        study.add_trial(
            create_trial(
                state=state,
                value=reports.get(100) if letter == "C" else None,
                intermediate_values=reports,
                user_attrs=attributes,
            )
        )
    found = check_sweep(study, tmp_path, 1)
    assert (found.lost, found.twice, found.differing) == (*wrong, 0), found.problems
    assert found.given_up == states.count("F")
