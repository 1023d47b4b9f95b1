"""MLflow: one experiment per sweep, one run per trial, identified by a tag."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from sweeps.tracking.trial_record import TrialRecord

KEY, STUDY, DIGEST = "sweeps.trial_key", "sweeps.study_key", "sweeps.digest"
_STATUS = {"complete": "FINISHED", "pruned": "KILLED"}


def mlflow_uri(configured: str | None, run_folder: Path) -> str:
    """The server or database: as configured, MLFLOW_TRACKING_URI, or mlflow.db in the run folder."""
    database = f"sqlite:///{(run_folder / 'mlflow.db').absolute()}"
    return configured or os.environ.get("MLFLOW_TRACKING_URI", "").strip() or database


def to_mlflow(records: Sequence[TrialRecord], uri: str) -> int:
    """Update the runs of a sweep; returns the number of trials for which there was something new.

    Curves are logged by optimizer step and, as `NAME_by_percent`, by percent of the budget. Runs are looked
    up by a tag with the trial's key, whichever process made them; what a run already has is not sent again.
    """
    # An unreachable server is tried again at the next update, so each attempt must end soon.
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
    from mlflow import MlflowClient

    if not records:
        return 0
    client = MlflowClient(tracking_uri=uri)
    experiment = _experiment(client, records[0].sweep)
    runs = {run.data.tags[KEY]: run for run in _runs(client, experiment, records[0].study_key)}
    new = 0
    for record in records:
        run = runs.get(record.key)
        if run is None or run.data.tags.get(DIGEST) != record.digest():
            _update(client, run or _create(client, experiment, record), record)
            new += 1
    return new


def _experiment(client: Any, name: str) -> str:
    found = client.get_experiment_by_name(name)
    if found is None:
        try:
            return str(client.create_experiment(name))
        except Exception:  # another process has just made it, or it cannot be made
            found = client.get_experiment_by_name(name)
            if found is None:
                raise
    if found.lifecycle_stage != "active":
        raise RuntimeError(
            f"the experiment {name!r} has been deleted in MLflow; restore it, or rename the sweep"
        )
    return str(found.experiment_id)


def _runs(client: Any, experiment: str, study_key: str) -> Iterator[Any]:
    token = None
    while True:
        page = client.search_runs(
            [experiment], f"tags.`{STUDY}` = '{study_key}'", max_results=1000, page_token=token
        )
        yield from page
        token = page.token
        if not token:
            return


def _create(client: Any, experiment: str, record: TrialRecord) -> Any:
    # With its tags from the start: a run is found again even if this process is killed here.
    return client.create_run(
        experiment,
        start_time=round(1000 * record.started),
        run_name=record.name,
        tags={KEY: record.key, STUDY: record.study_key, "sweep": record.sweep, "trial": str(record.number)},
    )


def _update(client: Any, run: Any, record: TrialRecord) -> None:
    from mlflow.entities import Metric, Param, RunTag
    from mlflow.utils import chunk_list

    run_id = run.info.run_id
    # MLflow takes at most 100 params and 1000 metrics in a request.
    params = [Param(k, str(v)) for k, v in record.params.items() if k not in run.data.params]
    for some_params in chunk_list(params, 100):
        client.log_batch(run_id, params=some_params)
    there = {metric.step for metric in client.get_metric_history(run_id, "eval_loss_by_percent")}
    metrics = []
    for point in record.points:
        if point.percent in there:
            continue
        when = round(1000 * point.seconds)
        metrics += [Metric(name, value, when, point.step) for name, value in point.values.items()]
        # eval_loss last: its presence means that the whole point was sent.
        metrics += [
            Metric(f"{name}_by_percent", value, when, point.percent)
            for name, value in sorted(point.values.items(), key=lambda item: item[0] == "eval_loss")
        ]
    last_step = record.points[-1].step if record.points else 0
    end = round(1000 * (record.finished or record.started))
    if record.is_over:
        metrics += [
            Metric(f"final_{name}", value, end, last_step)
            for name, value in record.final.items()
            if f"final_{name}" not in run.data.metrics
        ]
    for some_metrics in chunk_list(metrics, 500):
        client.log_batch(run_id, metrics=some_metrics)
    if record.is_over:
        client.set_terminated(run_id, _STATUS.get(record.outcome or "", "FAILED"), end_time=end)
    note = {"mlflow.note.content": f"{record.outcome}: {record.reason}"} if record.outcome else {}
    tags = {**record.tags, **note, DIGEST: record.digest()}
    client.log_batch(run_id, tags=[RunTag(name, value) for name, value in tags.items()])
