"""What `sweeps run` says, and the code it ends with, when trials fail or none gets to its end."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lora_runner.config import TrialConfig
from results.sweep_result import read_study
from sweeps.artifacts.run_folder import write_run_folder
from sweeps.config import SweepConfig, storage_url
from sweeps.confirm.arms import choose_arms
from sweeps.keeper.keeper import Keeper
from sweeps.sweep import Sweep
from tests.sweeps.cli.calling import Call, edit

Loss = Callable[[TrialConfig, int], float | str]


@pytest.fixture
def on_a_pack(folder: Path, pack: Any, monkeypatch: pytest.MonkeyPatch) -> Callable[[Loss | None], Path]:
    """`on_a_pack(loss)`: from now on runs train nothing, and need no Ray; the folder.

    With None they are interrupted before a trial has ended.
    """

    def make(loss: Loss | None) -> Path:
        def run(config: SweepConfig, blueprint: Any, *_: Any, **__: Any) -> tuple[bool, list[str]]:
            write_run_folder(config)
            keeper = Keeper(blueprint.study_spec, storage_url(config.storage, config.run_folder))
            if loss is not None:
                pack(keeper, loss, seats=1).run()
            keeper.leave()
            return loss is None, []

        monkeypatch.setattr("sweeps.run.run_sweep.run_on_ray", run)
        monkeypatch.setattr("sweeps.run.run_on_ray.run_on_ray", run)  # for confirmations
        monkeypatch.setattr("sweeps.run.run_sweep.write_result_files", lambda *_, **__: None)  # no adapters
        monkeypatch.chdir(folder)
        return folder

    return make


def good(config: TrialConfig, percent: int) -> float | str:
    return 2 + config.learning_rate + 1 / percent


def test_a_sweep_whose_every_trial_fails_says_why_and_once_mended_goes_on(
    call: Call, on_a_pack: Callable[[Loss | None], Path]
) -> None:
    folder = on_a_pack(lambda *_: "failed")
    answer = call("run", "s.yaml", "--set", "reliability.max_failures=3")
    assert answer.code == 1
    assert "0 of 4 trials finished." in answer.err
    assert "3 trials failed in this run: reliability.max_failures is 3." in answer.err
    assert (
        "3 configurations failed, the guideline default among them; most often, 3 times, as trial 0: it"
        in (answer.err)
    )
    assert "Fix it and run the same command" in answer.err
    assert "Traceback" not in answer.err
    on_a_pack(good)
    answer = call("run", folder / "runs" / "small")
    assert (answer.code, answer.err) == (0, "")
    assert "Done: 4 of 4 trials (2 complete, 3 failed, 2 pruned)" in answer.out
    assert "Not counted" not in answer.out


def test_interrupted_before_a_trial_ended_is_not_called_done(
    call: Call, on_a_pack: Callable[[Loss | None], Path]
) -> None:
    folder = on_a_pack(None)
    answer = call("run", "s.yaml")
    assert answer.code == 130
    assert "No trial ended in this run." in answer.out
    assert "Nothing was left" not in answer.out
    assert "note:" not in answer.out
    (folder / "runs" / "small").rename(folder / "runs" / "renamed")
    again = call("run", "s.yaml")
    assert again.code == 130
    assert again.out.startswith("note: runs/renamed holds a sweep of the same name, 'small'")


def test_without_any_value_a_run_has_failed_whatever_its_trials_ended_as(
    call: Call, on_a_pack: Callable[[Loss | None], Path]
) -> None:
    on_a_pack(lambda *_: "diverged")
    for _ in range(2):
        answer = call("run", "s.yaml")
        assert answer.code == 1
        assert "4 of 4 trials finished." in answer.err
        assert (
            "no trial has finished its full budget with a value (4 diverged; most often, 4 times"
            in answer.err
        )
    # A time limit, or a space that is used up, is no success either.
    assert call("run", "s.yaml", "--set", "search.timeout_seconds=60").code == 1


def test_a_failure_that_was_made_up_for_is_told_and_the_run_has_succeeded(
    call: Call, on_a_pack: Callable[[Loss | None], Path]
) -> None:
    seen: list[str] = []

    def second_fails(config: TrialConfig, percent: int) -> float | str:
        seen.extend({config.hash()} - set(seen))
        return "failed" if seen[1:2] == [config.hash()] else good(config, percent)

    on_a_pack(second_fails)
    answer = call("run", "s.yaml", "--set", "search.pruner=none")
    assert (answer.code, answer.err) == (0, "")
    assert "4 of 4 trials (4 complete, 1 failed)" in answer.out
    assert "Not counted: 1 configuration failed; it was failed." in answer.out


def test_a_missing_guideline_default_is_no_success(
    call: Call, on_a_pack: Callable[[Loss | None], Path]
) -> None:
    folder = on_a_pack(
        lambda config, percent: "failed" if abs(config.learning_rate - 2e-4) < 1e-9 else good(config, percent)
    )
    edit(folder / "s.yaml", "trials: 4", "trials: 3\nsearch: {pruner: none, sampler: random}")
    answer = call("run", "s.yaml")
    assert answer.code == 1
    assert "2 of 3 trials finished." in answer.err
    assert "the guideline default among them" in answer.err


def test_an_arm_whose_every_run_fails_is_named_and_the_others_have_their_verdict(
    call: Call, on_a_pack: Callable[[Loss | None], Path]
) -> None:
    folder = on_a_pack(good)
    edit(folder / "s.yaml", "trials: 4", "trials: 4\nsearch: {pruner: none}")
    assert call("run", "s.yaml").code == 0
    sweep = Sweep.load("s.yaml")
    study_spec = sweep.plan().study_spec
    # Of the rows' arms the one that no other arm decides.
    arms = choose_arms(read_study(sweep.study()), study_spec)
    broken = next(arm for arm in arms if arm.name == "lr_scheduler_type cosine")
    meant = study_spec.trial_config(broken.values)

    def one_arm_fails(config: TrialConfig, percent: int) -> float | str:
        is_broken = config.seed != meant.seed and replace(config, seed=meant.seed) == meant
        return "failed" if is_broken else good(config, percent)

    on_a_pack(one_arm_fails)
    answer = call("confirm", "s.yaml", "--set", "reliability.max_failures=2")
    assert answer.code == 1
    assert f"Every run of {broken.name!r} failed, so the verdict above says nothing about it" in answer.err
    assert "--no-rows --anew" in answer.err
    assert "Fix it and run the same command" in answer.err
    assert "Loss  " in answer.out
