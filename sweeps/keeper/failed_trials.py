"""What a run says at its end about failed trials, and about a study without any value."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import optuna
from optuna.trial import FrozenTrial, TrialState

from files_and_text.numbers import plural
from files_and_text.trial_paths import ERROR_FILE
from sweeps.keeper.sources.trial_source import open_failures
from sweeps.keeper.start_failures import normalized
from sweeps.study.read_status import is_default
from sweeps.study.status import Status
from sweeps.study.study import ENDED_STATES

TRY_AGAIN = "Fix it and run the same command: failed configurations are tried again first."


def failed_trials(study: optuna.Study, run_folder: Path) -> str | None:
    """How many configurations have only failed, and the most frequent reason; None if there are none."""
    failed = open_failures(study)
    if not failed:
        return None
    with_default = ", the guideline default among them" if any(map(is_default, failed)) else ""
    return f"{plural(len(failed), 'configuration')} failed{with_default}; {_most_often(failed, run_folder)}."


def without_value(study: optuna.Study, status: Status, run_folder: Path) -> str | None:
    """Why no trial has a value at its full budget; None if one has."""
    if status.best is not None:
        return None
    ended = study.get_trials(deepcopy=False, states=ENDED_STATES)
    outcomes = ", ".join(f"{count} {name}" for name, count in sorted(status.outcomes.items()))
    counts = f" ({outcomes}; {_most_often(ended, run_folder)})" if ended else ""
    return f"no trial has finished its full budget with a value{counts}."


def _most_often(trials: list[FrozenTrial], run_folder: Path) -> str:
    reasons = [_reason(trial) for trial in trials]
    ((kind, count),) = Counter(map(normalized, reasons)).most_common(1)
    example = next(t for t, reason in zip(trials, reasons, strict=True) if normalized(reason) == kind)
    often = "" if len(trials) == 1 else f"most often, {count} times, as trial {example.number}: "
    file = run_folder / str(example.user_attrs.get("folder", "")) / ERROR_FILE
    where = f" (see {file})" if example.state == TrialState.FAIL and file.is_file() else ""
    return f"{often}{_reason(example).rstrip('.')}{where}"


def _reason(trial: FrozenTrial) -> str:
    return str(trial.user_attrs.get("stop_reason") or "no reason is known")
