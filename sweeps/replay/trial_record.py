"""What study and run folder have recorded of one trial: its configuration, and the values of each report."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import FrozenTrial

from files_and_text.trial_paths import ADAPTER, ADAPTER_WEIGHTS, REPORTS_FILE, RESULT_FILE
from lora_runner.config import TrialConfig
from lora_runner.protocol import COMPLETE, FAILED, OUT_OF_MEMORY, PUT_BACK
from results.stored_trials import by_percent
from sweeps.errors import ReplayError

COMPARED = (
    *("step", "num_tokens", "learning_rate", "train_loss", "grad_norm", "eval_loss", "metric"),
    "adapter_sha256",
)
"""Fields of a report that must be the same bits, in the order in which they are computed."""
NOT_REACHED = (PUT_BACK, OUT_OF_MEMORY, FAILED)
"""Outcomes of reports that say nothing of the trial's numbers."""

GENERAL = "general:"
"""How `ComputePath.describe` begins for the general path."""


@dataclass(frozen=True)
class RecordedValue:
    """A value of one report, and where it is recorded."""

    percent: int
    name: str
    """One of `COMPARED`."""
    value: Any
    source: str
    """`study`, or the name of a file in the trial's folder."""


@dataclass(frozen=True)
class TrialRecord:
    """A trial that can be trained again."""

    number: int
    config: TrialConfig
    folder: Path
    values: tuple[RecordedValue, ...]
    """By rising percent, then in the order of `COMPARED`; a value that two places agree on is there once."""
    outcome: str | None
    """None for a trial that has not ended."""
    device: str | None
    num_threads: int | None
    compute_path: str | None

    @property
    def is_general(self) -> bool:
        """Whether it was computed on the general path, so far as that is recorded."""
        return (self.compute_path or "").startswith(GENERAL)

    @property
    def percents(self) -> list[int]:
        """Percents of the budget at which there is a report."""
        return sorted({value.percent for value in self.values})

    @property
    def lacking(self) -> list[str]:
        """Names in `COMPARED` of which no report has a value; a trial without a metric has none."""
        names = {value.name for value in self.values}
        return [name for name in COMPARED if name not in names and name != "metric"]

    @property
    def adapter_file(self) -> Path | None:
        """The adapter of a trial that used its whole budget, if it was kept."""
        file = self.folder / ADAPTER / ADAPTER_WEIGHTS
        return file if self.outcome == COMPLETE and file.is_file() else None


def read_record(study: optuna.Study, run_folder: Path, number: int) -> TrialRecord:
    """The record of a trial. ReplayError when there is no such trial, or none of its reports is recorded."""
    trials = study.get_trials(deepcopy=False)
    trial = trials[number] if 0 <= number < len(trials) else None
    if trial is None or "config" not in trial.user_attrs or not (values := _values(trial, run_folder)):
        raise ReplayError(_why_not(study.study_name, trials, number, run_folder))
    attrs, newest = trial.user_attrs, (_lines(trial, run_folder) or [{}])[-1]
    return TrialRecord(
        number=number,
        config=TrialConfig.from_dict(attrs["config"]),
        folder=run_folder / attrs["folder"],
        values=tuple(values),
        outcome=attrs.get("outcome"),
        device=attrs.get("device") or newest.get("device"),
        num_threads=attrs.get("num_threads") or newest.get("num_threads"),
        compute_path=attrs.get("compute_path") or newest.get("compute_path"),
    )


def _why_not(name: str, trials: Sequence[FrozenTrial], number: int, run_folder: Path) -> str:
    replayable = [t.number for t in trials if "config" in t.user_attrs and _values(t, run_folder)]
    if 0 <= number < len(trials):
        trial = trials[number]
        reason = trial.user_attrs.get("stop_reason") or f"it is {trial.state.name.lower()}"
        text = f"trial {number} of {name!r} has no recorded report ({reason})"
    else:
        text = f"{name!r} has trials 0 to {len(trials) - 1}, got {number}" if trials else f"{name!r} has none"
    if not replayable:
        return f"{text}; no trial has one yet"
    nearest = min(replayable, key=lambda known: abs(known - number))
    return f"{text}; the nearest trial with a record is {nearest}"


def _values(trial: FrozenTrial, run_folder: Path) -> list[RecordedValue]:
    """Each value once, unless two places differ."""
    found: dict[tuple[int, str], list[RecordedValue]] = {}
    for recorded in (*_in_study(trial), *_in_files(trial, run_folder)):
        known = found.setdefault((recorded.percent, recorded.name), [])
        if not any(same_bits(recorded.value, other.value) for other in known):
            known.append(recorded)
    order = sorted(found, key=lambda key: (key[0], COMPARED.index(key[1])))
    return [recorded for key in order for recorded in found[key]]


def _in_study(trial: FrozenTrial) -> Iterator[RecordedValue]:
    for name in ("eval_loss", "metric"):
        for percent, value in by_percent(trial, name).items():
            if value is not None:
                yield RecordedValue(percent, name, value, "study")
    attrs, losses = trial.user_attrs, by_percent(trial)
    if attrs.get("outcome") in (None, *NOT_REACHED) or not losses:
        return
    last = max(losses)
    # A trial that diverged between two reports ended at another step than its last value's.
    if attrs.get("eval_loss") == losses[last]:
        for name in COMPARED:
            if attrs.get(name) is not None:
                yield RecordedValue(last, name, attrs[name], "study")


def _in_files(trial: FrozenTrial, run_folder: Path) -> Iterator[RecordedValue]:
    for line in _lines(trial, run_folder):
        if line.get("outcome") not in NOT_REACHED:
            for name in COMPARED:
                if line.get(name) is not None:
                    yield RecordedValue(int(line["percent"]), name, line[name], line["file"])


def _lines(trial: FrozenTrial, run_folder: Path) -> list[Mapping[str, Any]]:
    """The reports in the trial's folder, with the file of each; unreadable ones and other configs' are left
    out."""
    attrs, found = trial.user_attrs, []
    for file in (REPORTS_FILE, RESULT_FILE):
        with suppress(OSError):
            text = (run_folder / attrs["folder"] / file).read_text(encoding="utf-8", errors="replace")
            for line in text.splitlines() if file == REPORTS_FILE else [text]:
                with suppress(ValueError, TypeError, KeyError):
                    values = json.loads(line)
                    int(values["percent"])
                    if values["number"] == trial.number and values["config_hash"] == attrs["config_hash"]:
                        found.append(values | {"file": file})
    return found


def same_bits(one: Any, other: Any) -> bool:
    """Whether two recorded values are equal in every bit; any two NaN are."""
    if isinstance(one, int | float) and isinstance(other, int | float):
        return float(one).hex() == float(other).hex()
    return bool(one == other)
