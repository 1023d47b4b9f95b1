"""One run per trial in other programs, read back with their own readers."""

from __future__ import annotations

import importlib.util
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from sweeps.cli.main import main
from sweeps.errors import ConfigError, TrackingFailed, TrackingNotInstalled
from sweeps.sweep import Sweep
from sweeps.tracking.follow import following
from sweeps.tracking.mlflow_runs import KEY, _create, _experiment, to_mlflow
from sweeps.tracking.trial_record import TrialRecord, read_records

pytestmark = [
    # Other programs' own business.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


def records_of(sweep: Sweep) -> list[TrialRecord]:
    return read_records(sweep.study(), sweep.run_folder)


def curve(record: TrialRecord, name: str = "eval_loss", by: str = "step") -> list[tuple[int, float]]:
    return [(getattr(point, by), pytest.approx(point.values[name], rel=1e-6)) for point in record.points]


# --- what is told ---------------------------------------------------------------------------------


def test_a_record_holds_the_study_and_what_the_trials_own_reports_add(watched):
    run = watched(trials=6)
    study = run.sweep.study()
    file = run.folder / "trials" / "0000" / "reports.jsonl"
    lines = file.read_text().splitlines()
    file.write_text("\n".join([*lines, '{"percent": 100, "step": 99, "train_loss": NaN}', '{"perc']))
    record, *_ = records = records_of(run.sweep)
    assert [r.number for r in records] == [t.number for t in study.trials]
    assert {p.percent: p.values["eval_loss"] for p in record.points} == study.trials[0].intermediate_values
    assert [p.step for p in record.points] == [20, 40, 60, 80, 99]
    assert record.points[0].values["train_loss"] == 1.5
    assert "train_loss" not in record.points[-1].values
    assert record.params["learning_rate"] == 2e-4
    assert record.params["warmup_steps"] == 10
    assert record.final["eval_loss_full_budget"] == study.trials[0].value
    stopped = next(r for r in records if r.outcome == "diverged")
    assert stopped.reason == "it was diverged"
    assert "eval_loss_full_budget" not in stopped.final
    file.unlink()
    assert [p.step for p in records_of(run.sweep)[0].points] == [20, 40, 60, 80, 100]


def test_keys_are_the_same_at_every_reading_and_differ_between_trials_and_studies(watched):
    run = watched(trials=4, turns=2)
    before = {r.number: r.key for r in records_of(run.sweep)}
    run.pack.run()
    after = {r.number: r.key for r in records_of(run.sweep)}
    assert before.items() <= after.items()
    assert len(set(after.values())) == 4
    run.keeper.study.set_user_attr("identity", {"metric": "another"})
    assert not {r.key for r in records_of(run.sweep)} & set(after.values())


def test_trials_that_nobody_works_on_are_not_told(watched):
    run = watched(trials=20, turns=1)
    told = {r.number for r in records_of(run.sweep)}
    assert told == {t.number for t in run.sweep.study().trials if "attempt" in t.user_attrs}


# --- TensorBoard ----------------------------------------------------------------------------------


def tensorboard(run_folder: Path, record: TrialRecord) -> Any:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    reader = EventAccumulator(str(run_folder / "tensorboard" / record.name))
    reader.Reload()
    return reader


def files(folder: Path) -> dict[str, int]:
    return {str(f): f.stat().st_mtime_ns for f in folder.rglob("*") if f.is_file()}


def test_tensorboard_has_each_point_once_however_often_it_is_told(watched):
    run = watched(trials=6, turns=2)
    assert run.sweep.track("tensorboard") == {"tensorboard": len(records_of(run.sweep))}
    run.pack.run()
    assert run.sweep.track("tensorboard")["tensorboard"] > 0
    there = files(run.folder / "tensorboard")
    assert len(there) == 6
    assert run.sweep.track("tensorboard") == {"tensorboard": 0}
    assert files(run.folder / "tensorboard") == there
    for record in records_of(run.sweep):
        reader = tensorboard(run.folder, record)
        if record.points:
            assert [(e.step, e.value) for e in reader.Scalars("eval_loss")] == curve(record)
            by_percent = [(e.step, e.value) for e in reader.Scalars("by_percent/eval_loss")]
            assert by_percent == curve(record, by="percent")
            assert ("train_loss" in reader.Tags()["scalars"]) == ("train_loss" in record.points[0].values)
        (said,) = reader.Tensors("outcome/text_summary")
        assert said.tensor_proto.string_val[0].decode() == f"**{record.outcome}**: {record.reason}"
        assert "hparams" in reader.summary_metadata["_hparams_/experiment"].plugin_data.plugin_name
        assert ("final/eval_loss_full_budget" in reader.Tags()["scalars"]) == (record.outcome == "complete")


# --- Weights & Biases -----------------------------------------------------------------------------


def offline_runs(folder: Path) -> dict[str, list[Any]]:
    """Records of every offline run by its id, as `wandb sync` reads them."""
    from wandb.proto import wandb_internal_pb2
    from wandb.sdk.internal.datastore import DataStore

    found: dict[str, list[Any]] = {}
    for file in folder.glob("wandb/offline-run-*/run-*.wandb"):
        store = DataStore()
        store.open_for_scan(str(file))
        records = []
        while (data := store.scan_data()) is not None:
            record = wandb_internal_pb2.Record()
            record.ParseFromString(data)
            records.append(record)
        run_id = file.stem.removeprefix("run-")
        assert run_id not in found, "a trial has two runs"
        found[run_id] = records
    return found


@pytest.mark.slow
def test_wandb_gets_each_ended_trial_once_and_a_cut_off_one_over(watched, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    run = watched(trials=5, turns=2)
    run.sweep.track("wandb")
    ended = {r.key for r in records_of(run.sweep) if r.is_over}
    assert set(offline_runs(run.folder)) == ended
    run.pack.run()
    run.sweep.track("wandb")
    assert run.sweep.track("wandb") == {"wandb": 0}
    runs = offline_runs(run.folder)
    records = {r.key: r for r in records_of(run.sweep)}
    assert set(runs) == set(records)
    for key, told in runs.items():
        record = records[key]
        about = next(item.run for item in told if item.WhichOneof("record_type") == "run")
        assert (about.run_group, about.project, about.run_id) == ("t", "qlora-sweeps", key)
        assert about.display_name == f"t-{record.name}"
        assert record.outcome in about.tags
        config = {item.key: json.loads(item.value_json) for item in about.config.update}
        assert config["learning_rate"] == record.params["learning_rate"]
        steps = [
            {i.key or ".".join(i.nested_key): json.loads(i.value_json) for i in item.history.item}
            for item in told
            if item.WhichOneof("record_type") == "history"
        ]
        assert [(step["_step"], step["eval_loss"]) for step in steps] == curve(record)
        assert [step["percent"] for step in steps] == [p.percent for p in record.points]
    # As if the process had died while it logged the last one.
    state = run.folder / "tracked-by-wandb.json"
    logged = json.loads(state.read_text())
    state.write_text(json.dumps(dict(list(logged.items())[:-1])))
    assert run.sweep.track("wandb") == {"wandb": 1}
    assert set(offline_runs(run.folder)) == set(records)


# --- MLflow ---------------------------------------------------------------------------------------


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


@pytest.fixture(scope="module")
def mlflow_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """MLflow's own server on SQLite."""
    import urllib.request

    folder, port = tmp_path_factory.mktemp("mlflow"), free_port()
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port)]
    command += ["--workers", "1", "--backend-store-uri", f"sqlite:///{folder}/mlflow.db"]
    command += ["--default-artifact-root", str(folder / "artifacts")]
    quiet = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
    log = folder / "server.log"
    with log.open("wb") as out:
        server = subprocess.Popen(command, env=os.environ | quiet, stdout=out, stderr=out, cwd=folder)
    try:
        deadline = time.monotonic() + 120
        while True:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5).close()
                break
            except OSError:
                assert server.poll() is None, log.read_text()
                assert time.monotonic() < deadline, log.read_text()
                time.sleep(0.3)
        yield f"http://127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait(timeout=30)


def mlflow_runs(uri: str) -> dict[str, Any]:
    from mlflow import MlflowClient

    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name("t")
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id])
    found = {run.data.tags[KEY]: run for run in runs}
    assert len(found) == len(runs), "a trial has two runs"
    return found


@pytest.mark.slow
def test_mlflow_has_one_run_a_trial_through_a_real_server(watched, mlflow_server, monkeypatch):
    from mlflow import MlflowClient

    monkeypatch.setenv("MLFLOW_TRACKING_URI", mlflow_server)
    client = MlflowClient(mlflow_server)
    run = watched(trials=6, turns=2)
    begun = records_of(run.sweep)
    # As if the process had died after it made the first run.
    _create(client, _experiment(client, "t"), begun[0])
    assert run.sweep.track("mlflow") == {"mlflow": len(begun)}
    statuses = {r.key: mlflow_runs(mlflow_server)[r.key].info.status for r in begun}
    assert {statuses[r.key] for r in begun if not r.is_over} == {"RUNNING"}
    run.pack.run()
    assert run.sweep.track("mlflow")["mlflow"] > 0
    assert run.sweep.track("mlflow") == {"mlflow": 0}
    runs = mlflow_runs(mlflow_server)
    records = records_of(run.sweep)
    assert set(runs) == {r.key for r in records}
    expected = {"complete": "FINISHED", "pruned": "KILLED", "diverged": "FAILED"}
    for record in records:
        there = runs[record.key]
        assert there.info.run_name == record.name
        assert there.info.status == expected[record.outcome or ""]
        assert there.data.tags["outcome"] == record.outcome
        assert there.data.tags["stop_reason"] == record.reason
        assert there.data.params["learning_rate"] == str(record.params["learning_rate"])
        for name, by in (("eval_loss", "step"), ("eval_loss_by_percent", "percent")):
            history = client.get_metric_history(there.info.run_id, name)
            assert sorted((m.step, m.value) for m in history) == curve(record, by=by)
        full = there.data.metrics.get("final_eval_loss_full_budget")
        assert full == record.final.get("eval_loss_full_budget")


@pytest.mark.slow
def test_mlflow_needs_no_server(watched, monkeypatch, capfd):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    run = watched(trials=3)
    with pytest.raises(SystemExit) as ended:
        main(["track", str(run.folder), "--to", "mlflow"])
    assert ended.value.code == 0
    assert capfd.readouterr().out == "mlflow: 3 trials brought up to date\n"
    uri = f"sqlite:///{run.folder}/mlflow.db"
    assert to_mlflow(records_of(run.sweep), uri) == 0
    assert len(mlflow_runs(uri)) == 3


# --- what goes wrong ------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_tracker_that_is_away_is_told_without_its_password_and_the_others_go_on(
    watched, monkeypatch, capfd
):
    uri = f"http://me:hush@127.0.0.1:{free_port()}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    run = watched(trials=3)
    with pytest.raises(SystemExit) as ended:
        main(["track", str(run.folder), "--to", "mlflow", "--to", "tensorboard"])
    said = capfd.readouterr()
    assert ended.value.code == 1
    assert said.err.startswith("error: mlflow: ")
    assert said.err.count("\n") == 1
    assert "hush" not in said.out + said.err
    assert len(files(run.folder / "tensorboard")) == 3


def test_a_missing_package_is_one_line_with_the_command_and_stops_a_run_before_it_begins(
    watched, monkeypatch, capfd
):
    run = watched(trials=3, more="tracking: {to: [mlflow, wandb]}")
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "wandb" else real(name))
    with pytest.raises(SystemExit) as ended:
        main(["track", str(run.folder)])
    assert ended.value.code == 2
    expected = "tracking to wandb needs packages that are not installed: pip install 'qlora-sweeps[tracking]'"
    assert capfd.readouterr().err == f"error: {expected}\n"
    before = files(run.folder)
    with pytest.raises(TrackingNotInstalled):
        run.sweep.run()
    assert files(run.folder) == before


def test_trackers_are_named_rightly_in_the_command_and_the_file(watched):
    sweep = watched(trials=3).sweep
    with pytest.raises(ConfigError, match=r"no tracker is named 'tensorbord'. Did you mean 'tensorboard'"):
        sweep.track("tensorbord")
    with pytest.raises(ConfigError, match="name a tracker"):
        sweep.track()
    file = sweep.run_folder / "sweep.yaml"
    text = file.read_text()
    for section, said in (
        ("{to: [mlflo]}", "Did you mean 'mlflow'"),
        ("{to: [mlflow], mlflow_tracking_uri: 'http://me:hush@host'}", "must not hold a password"),
        ("{every_seconds: 0}", "at least 1"),
    ):
        file.write_text(f"{text}\ntracking: {section}\n")
        with pytest.raises(ConfigError, match=said) as caught:
            Sweep.load(file, check_files=False)
        assert "hush" not in str(caught.value)


# --- beside a running sweep -----------------------------------------------------------------------


@pytest.mark.slow
def test_a_process_of_its_own_follows_the_sweep_to_its_end(watched):
    run = watched(trials=6, turns=1, more="tracking: {to: [tensorboard], every_seconds: 1}")
    heard: list[str] = []
    with following(run.sweep.config, heard.append):
        deadline = time.monotonic() + 60
        while not (run.folder / "tensorboard").exists():
            assert time.monotonic() < deadline
            time.sleep(0.1)
        run.pack.run()
    assert heard == []
    for record in records_of(run.sweep):
        assert record.is_over
        if record.points:
            reader = tensorboard(run.folder, record)
            assert [(e.step, e.value) for e in reader.Scalars("eval_loss")] == curve(record)
    assert "trials brought up to date: tensorboard" in (run.folder / "tracking.log").read_text()


@pytest.mark.slow
def test_a_tracker_that_hangs_or_fails_holds_nothing_up_and_raises_nothing(watched, monkeypatch):
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen()
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{deaf.getsockname()[1]}")
        run = watched(trials=3, more="tracking: {to: [mlflow]}")
        heard: list[str] = []
        begun = time.monotonic()
        with following(run.sweep.config, heard.append, last_update_seconds=6):
            pass
        assert 5 < time.monotonic() - begun < 20
    assert len(heard) == 1
    assert heard[0].startswith("tracking is not up to date, see ")
    heard.clear()
    with (
        pytest.raises(ZeroDivisionError),
        following(run.sweep.config, heard.append, last_update_seconds=0.1),
    ):
        raise ZeroDivisionError  # the sweep's own errors are its own
    assert len(heard) == 1
    begun = time.monotonic()
    with pytest.raises(KeyboardInterrupt), following(run.sweep.config, heard.append):
        raise KeyboardInterrupt  # the second Ctrl-C
    assert time.monotonic() - begun < 5


def test_a_sweep_without_trackers_starts_no_process(watched):
    run = watched(trials=3, turns=1)
    with following(run.sweep.config, pytest.fail):
        pass
    assert not (run.folder / "tracking.log").exists()


def test_one_pass_at_a_time_so_that_two_do_not_make_two_runs(watched, monkeypatch):
    sweep = watched(trials=3, turns=1).sweep
    monkeypatch.setattr("sweeps.tracking.update._LOCK_SECONDS", 0.1)
    with (
        FileLock(sweep.run_folder / ".tracking.lock"),
        pytest.raises(TrackingFailed, match="another process"),
    ):
        sweep.track("tensorboard")
    assert not (sweep.run_folder / "tensorboard").exists()
