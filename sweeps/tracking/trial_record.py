"""What is sent to a tracker about a trial: read from the study and from the trial's own reports."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import FrozenTrial

from files_and_text.plain_values import finite, plain
from files_and_text.trial_paths import REPORTS_FILE
from results.stored_trials import by_percent, full_budget_loss, sign_names

CURVES = ("train_loss", "grad_norm", "learning_rate", "num_tokens", "tokens_per_second", "peak_memory_gib")
"""Values of a report besides the evaluation loss."""
FINAL = (
    "metric",
    "train_loss",
    "num_steps",
    "num_tokens",
    "tokens_per_second",
    "peak_memory_gib",
    "wall_seconds",
)
FULL_BUDGET = "eval_loss_full_budget"
"""Only for trials that used their full budget: the `eval_loss` of others cannot be compared with it."""
_MAX_TAG = 5000
"""Characters; MLflow refuses more than 8000, and a reason may contain a long message."""


@dataclass(frozen=True, kw_only=True)
class Point:
    """One report."""

    percent: int
    """Percent of the trial's budget."""
    step: int
    """Optimizer step."""
    seconds: float
    """Since the epoch; the same every time the study is read."""
    values: Mapping[str, float]
    """eval_loss (nats per token), the metric and CURVES; finite numbers only."""


@dataclass(frozen=True, kw_only=True)
class TrialRecord:
    """A trial that has started; a tracker keeps one run of it."""

    key: str
    """16 hex digits that identify this trial of this study."""
    study_key: str
    sweep: str
    number: int
    params: Mapping[str, Any]
    """Its whole configuration and its sampled parameters: numbers, strings and booleans."""
    points: tuple[Point, ...]
    """In ascending order of percent."""
    final: Mapping[str, float]
    tags: Mapping[str, str]
    outcome: str | None = None
    reason: str = ""
    started: float
    """Seconds since the epoch."""
    finished: float | None = None
    labels: tuple[str, ...] = ()
    """Words to filter by: outcome, origin, scenario."""

    @property
    def name(self) -> str:
        return f"trial-{self.number:04d}"

    @property
    def is_over(self) -> bool:
        return self.finished is not None

    def digest(self) -> str:
        """Digest of everything that is sent: when it is equal, there is nothing new."""
        return _digest(asdict(self))


def read_records(study: optuna.Study, run_folder: Path) -> list[TrialRecord]:
    """All trials of a study that have started, by number."""
    attributes = study.user_attrs
    study_key = _digest([study.study_name, attributes.get("identity")])
    return [
        _record(study.study_name, study_key, attributes.get("context") or {}, trial, run_folder)
        for trial in study.get_trials(deepcopy=False)
        if trial.datetime_start is not None and ("attempt" in trial.user_attrs or trial.state.is_finished())
    ]


def _record(
    sweep: str, study_key: str, context: Mapping[str, Any], trial: FrozenTrial, run_folder: Path
) -> TrialRecord:
    attrs = trial.user_attrs
    config = {k: v for k, v in (attrs.get("config") or {}).items() if isinstance(v, str | int | float)}
    assert trial.datetime_start is not None
    started = trial.datetime_start.timestamp()  # Optuna keeps local time without a zone
    final = {FULL_BUDGET: full_budget_loss(trial), **{name: finite(attrs.get(name)) for name in FINAL}}
    outcome = attrs.get("outcome") if trial.state.is_finished() else None
    tags = {
        "outcome": outcome,
        "stop_reason": attrs.get("stop_reason") if outcome else None,
        "origin": attrs.get("origin"),
        "label": attrs.get("label"),
        "guideline_rows": " ".join(attrs.get("rows") or ()),
        "stability_signs": " ".join(sign_names(attrs)),
        "folder": attrs.get("folder"),
        "config_hash": attrs.get("config_hash"),
        **{name: context.get(name) for name in ("model", "scenario", "method")},
    }
    return TrialRecord(
        key=_digest([study_key, trial.number, attrs.get("config_hash")]),
        study_key=study_key,
        sweep=sweep,
        number=trial.number,
        params=plain({**config, **trial.params}),
        points=_points(trial, started, _reports(run_folder / str(attrs.get("folder", "")))),
        final={name: value for name, value in final.items() if value is not None},
        tags={name: str(value)[:_MAX_TAG] for name, value in tags.items() if value},
        outcome=outcome,
        reason=str(attrs.get("stop_reason") or "")[:_MAX_TAG] if outcome else "",
        started=started,
        finished=None if trial.datetime_complete is None else trial.datetime_complete.timestamp(),
        labels=tuple(
            str(word)[:64] for word in (outcome, attrs.get("origin"), context.get("scenario")) if word
        ),
    )


def _points(
    trial: FrozenTrial, started: float, reports: Mapping[int, Mapping[str, Any]]
) -> tuple[Point, ...]:
    max_steps = (trial.user_attrs.get("config") or {}).get("max_steps") or 100
    points = []
    metrics = by_percent(trial, "metric")
    for percent, loss in by_percent(trial).items():
        report = reports.get(percent, {})
        values = {
            "eval_loss": finite(loss),
            "metric": finite(metrics.get(percent)),
            **{name: finite(report.get(name)) for name in CURVES},
        }
        points.append(
            Point(
                percent=percent,
                step=int(report.get("step") or max(1, round(max_steps * percent / 100))),
                seconds=started + (finite(report.get("wall_seconds")) or percent),
                values={name: value for name, value in values.items() if value is not None},
            )
        )
    return tuple(points)


def _reports(folder: Path) -> dict[int, dict[str, Any]]:
    """A trial's own reports by percent, the latest of each; unreadable ones are left out."""
    try:
        lines = (folder / REPORTS_FILE).read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return {}
    found = {}
    for line in lines:
        try:
            report = json.loads(line)
            found[int(report["percent"])] = report
        except (ValueError, KeyError, TypeError):
            continue  # a line that is still being written
    return found


def _digest(value: Any) -> str:
    text = json.dumps(value, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
