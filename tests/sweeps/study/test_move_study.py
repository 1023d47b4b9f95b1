"""A sweep moved to another storage goes on as if it had been there from the start."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
import psutil
import pytest
from optuna.trial import FrozenTrial

import sweeps.study.move_study
from sweeps.artifacts.run_folder import check_run_folder, write_run_folder
from sweeps.cli.main import main
from sweeps.config import load_sweep
from sweeps.errors import RunFolderError, StorageUnreachable, StudyHeld, StudyMismatch, SweepFailed
from sweeps.keeper.keeper import Keeper
from sweeps.storage.optuna_private import storage_of, study_id_of
from sweeps.study.lease import LEASE, DriverProcess, Lease
from sweeps.study.move_study import copy_studies
from sweeps.sweep import Sweep

Make = Callable[..., Keeper]
Plainly = Callable[[str, str], list[FrozenTrial]]
SWEEP = """\
name: t
model: {name: /nowhere, size: 8.03e9}
data: {train: /nowhere.jsonl}
training: {max_steps: 100}
trials: 8
output: runs
"""
FIELDS = ("number", "state", "values", "params", "distributions", "intermediate_values", "system_attrs")


def half_done(keeper: Keeper, pack: Any) -> None:
    """Some trials ended, some on their seats, some prefetched."""
    simulated = pack(
        keeper, loss=lambda config, percent: "diverged" if percent == 60 else 2.0 + config.learning_rate
    )
    simulated.ask()
    for _ in range(4):
        simulated.turn()


def facts(trial: FrozenTrial) -> dict[str, Any]:
    return {name: getattr(trial, name) for name in FIELDS}


def everything(trial: FrozenTrial) -> dict[str, Any]:
    times = {"datetime_start": trial.datetime_start, "datetime_complete": trial.datetime_complete}
    return facts(trial) | times | {"user_attrs": trial.user_attrs}


def finish(keeper: Keeper, pack: Any) -> None:
    pack(keeper).run()
    keeper.close()


@pytest.mark.parametrize("sampler", ["tpe", "cmaes"])
def test_a_sweep_moved_half_way_ends_like_one_that_was_not_moved(
    make_keeper: Make,
    pack: Any,
    new_url: Callable[[str], str],
    plainly: Plainly,
    tmp_path: Path,
    sampler: str,
) -> None:
    options: dict[str, Any] = {"trials": 12, "sampler": sampler, "seed": 3, "at": "moving"}
    keeper = make_keeper(**options)
    half_done(keeper, pack)
    old, new = str(keeper._storage.url), new_url("new")
    shutil.copy(old.removeprefix("sqlite:///"), tmp_path / "stayed.db")
    shutil.copytree(tmp_path / "run-moving", tmp_path / "run-stayed")
    before = plainly(old, "t")
    assert {trial.state.name for trial in before} >= {"PRUNED", "RUNNING"}

    assert copy_studies(old, new, ("t", "t.confirm"), lease_seconds=0) == {"t": len(before)}
    assert [everything(t) for t in plainly(new, "t")] == [everything(t) for t in before]
    assert [everything(t) for t in plainly(old, "t")] == [everything(t) for t in before]

    moved = make_keeper(**options, url=new)
    assert moved.study.user_attrs["identity"] == keeper.study.user_attrs["identity"]
    finish(moved, pack)
    stayed = make_keeper(**options | {"at": "stayed"}, url=f"sqlite:///{tmp_path / 'stayed.db'}")
    finish(stayed, pack)
    ends = [[facts(t) for t in plainly(str(each._storage.url), "t")] for each in (moved, stayed)]
    assert ends[0] == ends[1]
    assert sum(end["state"].is_finished() for end in ends[0]) == 12


def test_the_confirm_study_and_non_finite_values_are_moved_too(
    new_database: Callable[[str], str], new_url: Callable[[str], str], plainly: Plainly
) -> None:
    old, new = new_database("old"), new_url("new")
    storage = optuna.storages.RDBStorage(old)
    for name in ("t", "t.confirm"):
        study = optuna.create_study(storage=storage, study_name=name)
        study.set_user_attr("identity", {"nested": {"a": [1, 2.5, None, "é"]}})
        storage.set_study_system_attr(study_id_of(study), "kept", {"by": "optuna"})
        trial = study.ask()
        trial.suggest_float("x", 1e-5, 1e-1, log=True)
        for step, value in enumerate((float("nan"), float("inf"), -float("inf"), 1e-300)):
            trial.report(value, step)
        trial.set_user_attr("note", name)
        study.tell(trial, state=optuna.trial.TrialState.FAIL)
    optuna.create_study(storage=storage, study_name="another")
    storage.engine.dispose()
    assert copy_studies(old, new, ("t", "t.confirm"), lease_seconds=0) == {"t": 1, "t.confirm": 1}
    for name in ("t", "t.confirm"):
        assert repr([everything(t) for t in plainly(new, name)]) == repr(
            [everything(t) for t in plainly(old, name)]
        )
        copied = sweeps.study.move_study.peek(new, name)
        assert copied is not None
        assert copied.user_attrs == {"identity": {"nested": {"a": [1, 2.5, None, "é"]}}}
        assert storage_of(copied).get_study_system_attrs(study_id_of(copied)) == {"kept": {"by": "optuna"}}
    assert sweeps.study.move_study.peek(new, "another") is None


# --- refused --------------------------------------------------------------------------------------


def test_a_name_taken_in_the_target_is_refused_and_left_alone(
    make_keeper: Make, new_url: Callable[[str], str], plainly: Plainly
) -> None:
    keeper, new = make_keeper(), new_url("new")
    other = sweeps.study.move_study.open_storage(new)
    optuna.create_study(storage=other, study_name="t").enqueue_trial({"x": 1})
    other.close()
    with pytest.raises(StudyMismatch, match="already holds a study named 't'"):
        copy_studies(str(keeper._storage.url), new, ("t",), lease_seconds=0)
    assert len(plainly(new, "t")) == 1


def test_a_move_killed_before_the_run_folder_was_written_can_be_repeated(
    make_keeper: Make, new_url: Callable[[str], str], plainly: Plainly
) -> None:
    keeper, new = make_keeper(), new_url("new")
    keeper.prefetch(0, 2)
    old = str(keeper._storage.url)
    first = copy_studies(old, new, ("t",), lease_seconds=0)
    assert copy_studies(old, new, ("t",), lease_seconds=0) == first
    copied = [everything(t) for t in plainly(new, "t")]
    # No longer a copy: the sweep has gone on in the source since.
    keeper.prefetch(0, 3)
    with pytest.raises(StudyMismatch, match="already holds a study named 't'"):
        copy_studies(old, new, ("t",), lease_seconds=0)
    assert [everything(t) for t in plainly(new, "t")] == copied


def test_a_copy_that_a_sweep_has_used_is_not_taken_for_a_leftover(
    make_keeper: Make, new_url: Callable[[str], str]
) -> None:
    keeper, new = make_keeper(), new_url("new")
    copy_studies(str(keeper._storage.url), new, ("t",), lease_seconds=0)
    taken_up = sweeps.study.move_study.open_storage(new)
    study = sweeps.study.move_study.find_study(taken_up, "t")
    assert study is not None
    study.set_user_attr(LEASE, "theirs")
    taken_up.close()
    with pytest.raises(StudyMismatch, match="already holds a study named 't'"):
        copy_studies(str(keeper._storage.url), new, ("t",), lease_seconds=0)


def test_moves_that_are_refused(make_keeper: Make, tmp_path: Path) -> None:
    url = str(make_keeper()._storage.url)
    file = Path(url.removeprefix("sqlite:///"))
    (tmp_path / "link.db").symlink_to(file)
    for same in (url, f"sqlite:///{tmp_path / 'link.db'}"):
        with pytest.raises(StudyMismatch, match="already; name another"):
            copy_studies(url, same, ("t",), lease_seconds=0)
    with pytest.raises(RunFolderError, match="no study 'u'"):
        copy_studies(url, f"journal:{tmp_path / 'new.log'}", ("u",), lease_seconds=0)
    with pytest.raises(StorageUnreachable, match="no folder"):
        copy_studies(url, f"journal:{tmp_path / 'none' / 'new.log'}", ("t",), lease_seconds=0)
    assert not (tmp_path / "new.log").exists()


def test_a_running_sweep_is_not_moved(make_keeper: Make, tmp_path: Path) -> None:
    keeper = make_keeper()
    url = str(keeper._storage.url)
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    try:
        started = psutil.Process(process.pid).create_time()
        owner = replace(DriverProcess.current("theirs"), pid=process.pid, started=started)
        lease = Lease(owner=owner, keeper="another", beat=7, seen=1e9)
        keeper.study.set_user_attr(LEASE, lease.to_text())
        with pytest.raises(StudyHeld, match=f"process {process.pid}"):
            copy_studies(url, f"journal:{tmp_path / 'new.log'}", ("t",), lease_seconds=0)
    finally:
        process.kill()
        process.wait()
    assert not (tmp_path / "new.log").exists()
    copy_studies(url, f"journal:{tmp_path / 'new.log'}", ("t",), lease_seconds=0)


def test_a_sweep_started_during_the_move_leaves_no_copy_behind(
    make_keeper: Make, new_url: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    keeper, new = make_keeper(), new_url("new")
    compare = sweeps.study.move_study._compare

    def after_another_trial(*arguments: Any) -> None:
        keeper.prefetch(0, 1)
        compare(*arguments)

    monkeypatch.setattr(sweeps.study.move_study, "_compare", after_another_trial)
    with pytest.raises(SweepFailed, match="differs from the original"):
        copy_studies(str(keeper._storage.url), new, ("t",), lease_seconds=0)
    assert sweeps.study.move_study.peek(new, "t") is None


# --- the command ----------------------------------------------------------------------------------


@pytest.fixture
def ran(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pack: Any, study_spec: Any) -> Sweep:
    """A half finished sweep with its run folder, its study in there."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SWEEPS_STORAGE", raising=False)
    (tmp_path / "s.yaml").write_text(SWEEP)
    sweep = Sweep.load("s.yaml", check_files=False)
    write_run_folder(sweep.config)
    keeper = Keeper(study_spec(sweep.run_folder, trials=8), sweep.storage_url)
    half_done(keeper, pack)
    keeper.leave()
    return sweep


def call(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    capsys.readouterr()
    code: Any = 0
    try:
        main([*arguments])
    except SystemExit as ended:
        code = ended.code or 0
    said = capsys.readouterr()
    return int(code), said.out, said.err


@pytest.mark.parametrize("path", ["s.yaml", "runs/t"])
def test_one_line_moves_a_sweep_to_postgresql(
    ran: Sweep,
    postgresql: Any,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    path: str,
) -> None:
    before = ran.tables().trials
    # Already set, but the run folder's own sweep file decides where its study is.
    monkeypatch.setenv("SWEEPS_STORAGE", postgresql.new_database())
    assert len(Sweep.load("runs/t", check_files=False).tables().trials) == len(before)
    with pytest.raises(RunFolderError, match="sweeps move"):
        check_run_folder(Sweep.load("s.yaml", check_files=False).config)
    code, out, err = call(capsys, "move", path, "--to", "env:SWEEPS_STORAGE")
    assert (code, err) == (0, "")
    line = out.splitlines()[-1]
    assert line == 'storage: "env:SWEEPS_STORAGE"'
    assert "hush" not in out
    Path("s.yaml").write_text(f"{SWEEP}{line}\n")
    for moved in (Sweep.load("s.yaml", check_files=False), Sweep.load("runs/t", check_files=False)):
        check_run_folder(moved.config)
        assert moved.storage_url.startswith("postgresql")
        assert moved.tables().trials.equals(before)
    assert "hush" not in Path("runs/t/sweep.yaml").read_text()
    assert Path("runs/t/study.db").is_file()


def test_a_relative_journal_is_written_as_absolute_and_an_unchanged_sweep_file_is_refused(
    ran: Sweep, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, _ = call(capsys, "move", "s.yaml", "--to", "journal:new.log")
    assert (code, out.splitlines()[-1]) == (0, f'storage: "journal:{tmp_path / "new.log"}"')
    assert load_sweep("runs/t", check_files=False).storage == f"journal:{tmp_path / 'new.log'}"
    with pytest.raises(RunFolderError, match="belongs to another sweep"):
        check_run_folder(Sweep.load("s.yaml", check_files=False).config)
    # Moving back does not overwrite the old study.
    code, _, err = call(capsys, "move", "runs/t", "--to", f"sqlite:///{ran.run_folder}/study.db")
    assert (code, "already holds a study named 't'" in err) == (2, True)


@pytest.mark.parametrize(
    ("to", "message"),
    [
        ("postgresql://me:secret@host/db", "must not hold a password"),
        ("env:NOT_SET_ANYWHERE", "it is not set"),
        ("nowhere", "must be a database URL"),
        ("journal:missing/new.log", "no folder"),
        ("sqlite:///runs/t/study.db", "already; name another"),
    ],
)
def test_bad_targets_change_nothing(
    ran: Sweep, capsys: pytest.CaptureFixture[str], to: str, message: str
) -> None:
    before = Path("runs/t/sweep.yaml").read_bytes()
    code, _, err = call(capsys, "move", "runs/t", "--to", to)
    assert (code, message in err, "secret" in err) == (2, True, False), err
    assert Path("runs/t/sweep.yaml").read_bytes() == before
