"""The study as pandas tables, one row per trial and one per report, and as CSV and parquet files."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import optuna
import pandas as pd
from optuna.trial import FrozenTrial

from files_and_text.atomic_files import atomic_write
from files_and_text.plain_values import finite, plain
from results.stored_trials import by_percent, full_budget_loss, full_budget_metric, search_trials

TRIALS_CSV, TRIALS_PARQUET, REPORTS_PARQUET = "trials.csv", "trials.parquet", "reports.parquet"

DERIVED = ("embedding_learning_rate", "warmup_steps", "max_steps")
"""Fields of a trial's config that follow from its parameters and the budget."""

_MEASURED: dict[str, str] = {
    "train_loss": "Float64",
    "num_steps": "Int64",
    "num_tokens": "Int64",
    "tokens_per_second": "Float64",
    "peak_memory_gib": "Float64",
    "wall_seconds": "Float64",
}
_LOCATION: dict[str, str] = {
    "attempt": "Int64",
    "seat": "Int64",
    "worker": "Int64",
    "folder": "string",
    "config_hash": "string",
}


class Tables(NamedTuple):
    """`trials_frame` and `reports_frame` of one study."""

    trials: pd.DataFrame
    reports: pd.DataFrame


def tables(study: optuna.Study) -> Tables:
    """Both tables of a study."""
    return Tables(trials_frame(study), reports_frame(study))


def write_tables(study: optuna.Study, folder: Path) -> None:
    """Write trials.csv, trials.parquet and reports.parquet into a folder, each whole or not at all."""
    trials, reports = tables(study)
    atomic_write(folder / TRIALS_CSV, trials.to_csv(index=False, lineterminator="\n"))
    atomic_write(folder / TRIALS_PARQUET, trials.to_parquet(index=False))
    atomic_write(folder / REPORTS_PARQUET, reports.to_parquet(index=False))


def read_tables(folder: Path) -> Tables:
    """Read back what `write_tables` wrote, values and types; FileNotFoundError when there is nothing."""
    return Tables(pd.read_parquet(folder / TRIALS_PARQUET), pd.read_parquet(folder / REPORTS_PARQUET))


def trials_frame(study: optuna.Study) -> pd.DataFrame:
    """One row per trial, by number, whatever its outcome.

    `eval_loss` (nats per token) is the value at the full budget, empty for every other trial; the last
    report of an unfinished or stopped trial is `last_eval_loss` at `last_percent` of the budget.
    `metric` follows where the sweep has one, at the full budget. Then the parameters by their own names, what
    follows from them (`DERIVED`), where it came from (`origin`, `label`, `rows`), the stability `signs` as
    `name@step`, counts, times (UTC-naive, as Optuna keeps them) and where it ran.
    """
    trials = search_trials(study)
    parameters = _parameter_names(trials)
    records = [_record(trial, parameters) for trial in trials]
    types: dict[str, str] = {
        "number": "Int64",
        "state": "string",
        "outcome": "string",
        "stop_reason": "string",
        "eval_loss": "Float64",
        "last_eval_loss": "Float64",
        "last_percent": "Int64",
        **({"metric": "Float64"} if has_metric(study) else {}),
        **{name: _column_type(trials, name) for name in parameters},
        "embedding_learning_rate": "Float64",
        "warmup_steps": "Int64",
        "max_steps": "Int64",
        "origin": "string",
        "label": "string",
        "rows": "string",
        "signs": "string",
        **_MEASURED,
        "started": "datetime64[us]",
        "finished": "datetime64[us]",
        **_LOCATION,
    }
    return _frame(records, types)


def parameters_of(frame: pd.DataFrame) -> list[str]:
    """The columns of a `trials_frame` that are parameters of its study."""
    columns = list(frame.columns)
    found = columns[columns.index("last_percent") + 1 : columns.index(DERIVED[0])]
    return [name for name in found if name != "metric"]


def records_of(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """The rows of one of these frames as JSON-ready builtins; times in ISO 8601, missing values null."""
    return [
        {str(name): _plain(value) for name, value in record.items()} for record in frame.to_dict("records")
    ]


def reports_frame(study: optuna.Study) -> pd.DataFrame:
    """One row per report: `number` of the trial, `percent` of its budget, `eval_loss` (nats per token).

    `metric` is beside it in a sweep that has one, empty where a report did not measure it.
    """
    types = {"number": "Int64", "percent": "Int64", "eval_loss": "Float64"}
    if has_metric(study):
        types["metric"] = "Float64"
    records = []
    for trial in search_trials(study):
        metrics = by_percent(trial, "metric")
        records += [
            {"number": trial.number, "percent": percent, "eval_loss": value, "metric": metrics.get(percent)}
            for percent, value in by_percent(trial).items()
        ]
    return _frame(records, types)


def has_metric(study: optuna.Study) -> bool:
    """Whether the sweep measured a metric beside the loss."""
    return bool((study.user_attrs.get("context") or {}).get("metric"))


def _record(trial: FrozenTrial, parameters: Iterable[str]) -> dict[str, Any]:
    attrs = trial.user_attrs
    config = attrs.get("config") or {}
    losses = by_percent(trial)
    last = max(losses, default=None)
    return {
        "number": trial.number,
        "state": trial.state.name,
        "outcome": attrs.get("outcome"),
        "stop_reason": attrs.get("stop_reason"),
        "eval_loss": full_budget_loss(trial),
        "last_eval_loss": None if last is None else finite(losses[last]),
        "last_percent": last,
        "metric": full_budget_metric(trial),
        **{name: trial.params.get(name) for name in parameters},
        **{name: config.get(name) for name in DERIVED},
        "origin": attrs.get("origin"),
        "label": attrs.get("label"),
        "rows": " ".join(attrs.get("rows") or ()) or None,
        "signs": " ".join(f"{sign['sign']}@{sign.get('step')}" for sign in attrs.get("signs") or ()) or None,
        **{name: finite(attrs.get(name)) for name in _MEASURED},
        "started": trial.datetime_start,
        "finished": trial.datetime_complete,
        **{name: attrs.get(name) for name in _LOCATION},
    }


def _parameter_names(trials: Sequence[FrozenTrial]) -> list[str]:
    """Parameters of any trial in order of appearance, without those that have a derived column."""
    names = dict.fromkeys(name for trial in trials for name in trial.params)
    return [name for name in names if name not in DERIVED]


def _column_type(trials: Sequence[FrozenTrial], name: str) -> str:
    values = [trial.params[name] for trial in trials if name in trial.params]
    if values and all(isinstance(value, bool) for value in values):
        return "boolean"
    if any(isinstance(value, bool) or not isinstance(value, int | float) for value in values):
        return "string"
    return "Int64" if all(isinstance(value, int) for value in values) else "Float64"


def _plain(value: Any) -> Any:
    if pd.isna(value):
        return None
    return value.isoformat() if isinstance(value, pd.Timestamp) else plain(value)


def _frame(records: Sequence[Mapping[str, Any]], types: Mapping[str, str]) -> pd.DataFrame:
    """Typed even without rows, so that an empty study concatenates and plots like any other."""
    return pd.DataFrame(records, columns=list(types), dtype=object).astype(types)
