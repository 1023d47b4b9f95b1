"""Compares the results of a sweep with those of an undisturbed run."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field, fields
from pathlib import Path

import optuna
from optuna.trial import FrozenTrial, TrialState

from lora_runner.config import TrialConfig
from lora_runner.protocol import COMPLETE, FAILED, PRUNED
from results.adapter_files import check_adapter_files
from sweeps.keeper.sources.trial_source import RETRY_OF
from sweeps.study.read_status import is_default
from tests.chaos.rehearsal import expected

_STATES = {"complete": "COMPLETE", "failed": "FAIL"}
"""Of an outcome; every other one is PRUNED."""
GIVEN_UP = "lost its worker "
"""Start of the stop reason of a trial that failed because its workers died."""


@dataclass
class Findings:
    """Counts over the checked sweeps, and what was wrong."""

    trials_checked: int = 0
    given_up: int = 0
    """Trials that failed because their workers were killed too often: no error, the next run retries them."""
    lost: int = 0
    twice: int = 0
    left_running: int = 0
    differing: int = 0
    problems: list[str] = field(default_factory=list)

    def add(self, other: Findings) -> None:
        """Add another sweep's counts."""
        for each in fields(self):
            setattr(self, each.name, getattr(self, each.name) + getattr(other, each.name))

    @property
    def wrong(self) -> int:
        return self.lost + self.twice + self.left_running + self.differing


def check_sweep(study: optuna.Study, run_folder: Path, asked: int) -> Findings:
    """Check a finished sweep: the right number of trials, each configuration once, each with its own values.

    A failed configuration may have been retried as another trial, until one did not fail.
    """
    found = Findings()
    trials = study.get_trials(deepcopy=False)
    finished = [trial for trial in trials if trial.state.is_finished()]
    found.trials_checked = len(finished)
    found.given_up = sum(_was_given_up(trial) for trial in finished)
    counted = _num_counted(finished)
    found.lost = max(0, asked - counted)
    found.left_running = sum(trial.state == TrialState.RUNNING for trial in trials)
    configs = Counter(
        trial.user_attrs.get("config_hash") for trial in finished if not _is_retry(trial, trials)
    )
    found.twice = max(0, counted - asked) + sum(count - 1 for count in configs.values())
    for trial in finished:
        wrong = _differences(trial, run_folder)
        if wrong:
            found.differing += 1
            found.problems.append(f"{run_folder.name} trial {trial.number}: {'; '.join(wrong)}")
    for name, count in (("lost", found.lost), ("twice", found.twice), ("running", found.left_running)):
        if count:
            states = Counter(trial.state.name for trial in trials)
            found.problems.append(f"{run_folder.name}: {count} {name}, states {dict(states)}, {configs}")
    return found


def _num_counted(finished: list[FrozenTrial]) -> int:
    """Trials that count towards `trials`; the guideline default does although it failed."""
    ended = [trial for trial in finished if trial.state != TrialState.FAIL]
    default = list(filter(is_default, finished))
    return len(ended) + (bool(default) and all(trial.state == TrialState.FAIL for trial in default))


def _is_retry(trial: FrozenTrial, trials: list[FrozenTrial]) -> bool:
    """Whether the trial is a legitimate retry: all earlier trials of its configuration failed."""
    if RETRY_OF not in trial.user_attrs:
        return False
    config = trial.user_attrs.get("config_hash")
    first = trials[trial.user_attrs[RETRY_OF]]
    before = [t for t in trials[: trial.number] if t.user_attrs.get("config_hash") == config]
    return first in before and all(other.state == TrialState.FAIL for other in before)


def _was_given_up(trial: FrozenTrial) -> bool:
    """Whether it failed because of kills, and not by its configuration."""
    config, reason = trial.user_attrs.get("config"), str(trial.user_attrs.get("stop_reason"))
    return (
        trial.state == TrialState.FAIL
        and reason.startswith(GIVEN_UP)
        and config is not None
        and expected(TrialConfig.from_dict(config)).outcome != FAILED
    )


def _differences(trial: FrozenTrial, run_folder: Path) -> list[str]:
    attributes = trial.user_attrs
    config = TrialConfig.from_dict(attributes["config"])
    truth = expected(config)
    outcome, wrong = attributes.get("outcome"), list[str]()
    given_up = _was_given_up(trial)
    if outcome not in (truth.outcome, PRUNED) and not given_up:
        wrong.append(f"outcome {outcome!r} ({attributes.get('stop_reason')}), not {truth.outcome!r}")
    if trial.state.name != _STATES.get(str(outcome), "PRUNED"):
        wrong.append(f"state {trial.state.name} for outcome {outcome!r}")
    seen = trial.intermediate_values
    allowed = (
        dict(list(truth.reports.items())[: len(seen)]) if outcome == PRUNED or given_up else truth.reports
    )
    if seen != allowed:
        wrong.append(f"reports {seen}, not {allowed}")
    if outcome == COMPLETE:
        if trial.value != truth.reports[100]:
            wrong.append(f"value {trial.value}, not {truth.reports[100]}")
        result = json.loads((run_folder / attributes["folder"] / "result.json").read_text(encoding="utf-8"))
        if result["eval_loss"] != trial.value:
            wrong.append(f"result.json says {result['eval_loss']}")
    if not attributes.get("stop_reason"):
        wrong.append("no reason")
    if any((run_folder / attributes["folder"]).glob("checkpoint*")):
        wrong.append("its checkpoint was not removed")
    return wrong


def check_files(study: optuna.Study, run_folder: Path, keep_adapters: int) -> list[str]:
    """Check that adapters of the best are complete and the others removed."""
    wrong = []
    complete = [t for t in study.get_trials(deepcopy=False) if t.state == TrialState.COMPLETE]
    best = sorted(complete, key=lambda t: (t.value, t.number))[:keep_adapters]
    for trial in best:
        check_adapter_files(run_folder / trial.user_attrs["folder"] / "adapter")
    kept = list(run_folder.glob("trials/*/adapter"))
    if len(kept) > keep_adapters + 1:
        wrong.append(f"{len(kept)} adapters are kept, not {keep_adapters} and the default's")
    return wrong
