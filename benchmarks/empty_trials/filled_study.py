"""Studies of any size, filled in bulk with copies of a few real trials."""

from __future__ import annotations

import copy
import json
import math
import random
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any

import sqlalchemy
from optuna.distributions import CategoricalDistribution, distribution_to_json
from optuna.trial import FrozenTrial, TrialState

from benchmarks.empty_trials.losses import LEARNING_RATES, REPORT_PERCENTS, SEED, loss_of
from files_and_text.trial_paths import trial_folder
from sweeps.storage.journal_storage import JournalStudyStorage
from sweeps.storage.open_storage import open_storage
from sweeps.storage.optuna_private import models, study_id_of
from sweeps.storage.sql_storage import SqlStudyStorage

PACK = 32
"""Seats of one worker."""
ROWS = 5000
"""Rows per INSERT."""


def fill(url: str, patterns: Sequence[FrozenTrial], *, finished: int, seats: int, run: str) -> None:
    """Add `finished` finished trials and `seats` running ones to the storage's only study.

    They copy `patterns`, finished trials of that study, with other parameters and matching losses.
    """
    storage = open_storage(url)
    try:
        study_id = study_id_of(storage.get_all_studies()[0])
        number = len(storage.get_all_trials(study_id, deepcopy=False))
        trials = _copies(patterns, finished=finished, seats=seats, run=run, number=number)
        if isinstance(storage, SqlStudyStorage):
            _insert(storage.engine, study_id, list(trials))
        else:
            assert isinstance(storage, JournalStudyStorage)
            with storage.transaction():
                for trial in trials:
                    storage.create_new_trial(study_id, trial)
    finally:
        storage.close()


def _copies(
    patterns: Sequence[FrozenTrial], *, finished: int, seats: int, run: str, number: int
) -> Iterator[FrozenTrial]:
    generator = random.Random(SEED)
    low, high = (math.log(rate) for rate in LEARNING_RATES)
    for index in range(finished + seats):
        trial = copy.copy(patterns[index % len(patterns)])
        trial.number = number + index
        rate = math.exp(generator.uniform(low, high))
        trial.params = trial.params | {"learning_rate": rate}
        config = trial.user_attrs["config"] | {"learning_rate": rate}
        attributes = trial.user_attrs | {"folder": trial_folder(trial.number), "config": config}
        trial.intermediate_values = {p: loss_of(rate, p) for p in trial.intermediate_values}
        if index >= finished:
            seat = index - finished
            given = {"attempt": 1, "worker": seat // PACK, "seat": seat % PACK, "run": run}
            ended = ("outcome", "stop_reason", "eval_loss", "wall_seconds", "signs", "generations")
            attributes = {key: value for key, value in attributes.items() if key not in ended} | given
            trial.state, trial.values, trial.datetime_complete = TrialState.RUNNING, None, None
            trial.intermediate_values = {}
        elif trial.state == TrialState.COMPLETE:
            trial.values = [loss_of(rate, REPORT_PERCENTS[-1])]
        trial.user_attrs = attributes
        yield trial


def _insert(engine: sqlalchemy.Engine, study_id: int, trials: Sequence[FrozenTrial]) -> None:
    """Write what Optuna's storage would, table by table."""
    finite, first = models.TrialIntermediateValueModel.TrialIntermediateValueType.FINITE, 1
    value_kind = models.TrialValueModel.TrialValueType.FINITE
    with engine.begin() as connection:
        last = connection.execute(sqlalchemy.select(sqlalchemy.func.max(models.TrialModel.trial_id))).scalar()
        first += int(last or 0)
        ids = [(first + index, trial) for index, trial in enumerate(trials)]
        tables: list[tuple[Any, list[dict[str, Any]]]] = [
            (
                models.TrialModel,
                [
                    {
                        "trial_id": trial_id,
                        "number": t.number,
                        "study_id": study_id,
                        "state": t.state,
                        **_times(t),
                    }
                    for trial_id, t in ids
                ],
            ),
            (
                models.TrialParamModel,
                [
                    {
                        "trial_id": trial_id,
                        "param_name": name,
                        "param_value": _internal(t, name),
                        "distribution_json": distribution_to_json(t.distributions[name]),
                    }
                    for trial_id, t in ids
                    for name in t.params
                ],
            ),
            (
                models.TrialUserAttributeModel,
                [
                    {"trial_id": trial_id, "key": key, "value_json": json.dumps(value)}
                    for trial_id, t in ids
                    for key, value in t.user_attrs.items()
                ],
            ),
            (
                models.TrialIntermediateValueModel,
                [
                    {
                        "trial_id": trial_id,
                        "step": step,
                        "intermediate_value": value,
                        "intermediate_value_type": finite,
                    }
                    for trial_id, t in ids
                    for step, value in t.intermediate_values.items()
                ],
            ),
            (
                models.TrialValueModel,
                [
                    {"trial_id": trial_id, "objective": 0, "value": t.values[0], "value_type": value_kind}
                    for trial_id, t in ids
                    if t.values
                ],
            ),
        ]
        for model, rows in tables:
            for start in range(0, len(rows), ROWS):
                connection.execute(sqlalchemy.insert(model.__table__), rows[start : start + ROWS])
        if engine.dialect.name == "postgresql":
            # Explicit ids do not advance the sequence of ids.
            text = "SELECT setval(pg_get_serial_sequence('trials', 'trial_id'), max(trial_id)) FROM trials"
            connection.execute(sqlalchemy.text(text))


def _times(trial: FrozenTrial) -> dict[str, datetime | None]:
    return {"datetime_start": trial.datetime_start, "datetime_complete": trial.datetime_complete}


def _internal(trial: FrozenTrial, name: str) -> float:
    distribution, value = trial.distributions[name], trial.params[name]
    if isinstance(distribution, CategoricalDistribution):
        return distribution.to_internal_repr(value)
    return float(value)
