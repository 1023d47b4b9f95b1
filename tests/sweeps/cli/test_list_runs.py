"""`sweeps list`: what it says of runs in each state, and that it only reads."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

from sweeps.study.lease import DriverProcess, lease_of
from sweeps.study.progress_file import write_progress
from sweeps.study.status import Status
from sweeps.sweep import Sweep
from tests.kept.restoring import restore
from tests.sweeps.cli.calling import Call, listing
from tests.sweeps.watched_sweep import Watched
from tests.terminal import in_terminal

Make = Callable[..., Watched]


def states(call: Call, runs: Path) -> dict[str, dict[str, Any]]:
    """Name of the run folder -> what `list --json` says of it, in its order."""
    answer = call("list", runs, "--json")
    assert answer.code == 0, answer.err
    return {Path(run["path"]).name: run for run in json.loads(answer.out)}


def test_a_run_is_listed_with_its_state_trials_best_loss_and_time(call: Call, watched: Make) -> None:
    running = watched(turns=1)
    runs = running.folder.parent
    found = states(call, runs)["t"]
    assert (found["state"], found["finished"], found["target"], found["best_loss"]) == ("running", 0, 6, None)
    running.keeper.close()
    assert states(call, runs)["t"]["state"] == "interrupted"
    write_progress(running.folder, Status("t", 6, task="confirm"), DriverProcess.current("x"))
    assert states(call, runs)["t"]["state"] == "confirming"


def test_a_finished_run_and_those_that_cannot_be_read(
    call: Call, watched: Make, monkeypatch: Any, tmp_path: Path
) -> None:
    ended = watched()
    ended.keeper.close()
    runs = ended.folder.parent
    file = (ended.folder / "sweep.yaml").read_text()
    elsewhere = file.replace(ended.sweep.storage_url, "sqlite:///none.db").replace("name: t", "name: empty")
    for name, text in (("broken", "name: ["), ("empty", elsewhere)):
        (runs / name).mkdir()
        (runs / name / "sweep.yaml").write_text(text)
    (runs / "notes").mkdir()
    shutil.copytree(ended.folder, runs / "damaged")
    damaged = file.replace(ended.sweep.storage_url, "sqlite:///damaged.db")
    (runs / "damaged" / "sweep.yaml").write_text(damaged)
    (runs / "damaged" / "damaged.db").write_bytes(b"no database" * 1000)
    before = listing(tmp_path)
    found = states(call, runs)
    assert {name: run["state"] for name, run in found.items()} == {
        "broken": "unreadable",
        "damaged": "unreadable",
        "empty": "no trial",
        "t": "finished",
    }
    best = min(
        trial.value for trial in ended.sweep.study().trials if trial.user_attrs["outcome"] == "complete"
    )
    assert found["t"]["best_loss"] == best
    shown = call("list", runs)
    assert shown.code == 0
    lines = shown.out.splitlines()
    assert lines[0].split() == ["run", "state", "trials", "best", "loss", "last", "sign", "of", "life"]
    assert any(line.startswith(f"{runs / 't'} ") and f"6 of 6  {best:.3f}" in line for line in lines)
    assert any(line.startswith(f"{runs / 'broken'}: ") and "not valid YAML" in line for line in lines)
    assert any(line.startswith(f"{runs / 'damaged'}: ") for line in lines)
    assert listing(tmp_path) == before
    monkeypatch.chdir(runs.parent)
    assert call("list").out.splitlines()[1].startswith("runs/")
    assert call("list", ".").out == call("list", "runs").out


def test_the_newest_is_first(call: Call, watched: Make) -> None:
    old = watched()
    old.keeper.close()
    runs = old.folder.parent
    (runs / "newer").mkdir()
    (runs / "newer" / "sweep.yaml").write_text("name: newer\nmodel: base\ndata: {train: d.jsonl}\n")
    assert list(states(call, runs)) == ["newer", "t"]


def test_after_a_confirmation_the_loss_is_that_of_the_seeds(call: Call, tmp_path: Path) -> None:
    sweep = Sweep.load(restore("confirm", tmp_path), check_files=False)
    best = sweep.answer.best
    assert best is not None
    assert best.loss.seeds > 0
    found = states(call, sweep.run_folder.parent)[sweep.run_folder.name]
    assert found["best_loss"] == best.loss.value
    confirmation = sweep.replicates()
    assert confirmation is not None
    lease = lease_of(confirmation)
    assert lease is not None
    assert datetime.fromisoformat(found["when"]).timestamp() == int(lease.seen)  # after the sweep's own
    status = sweep.status()
    assert status.best is not None
    assert (status.best["eval_loss"], status.best["seeds"]) == (best.loss.value, best.loss.seeds)
    assert status.confirm_runs == 6
    assert "Confirmation: 6 runs on new seeds." in call("status", sweep.run_folder).out


def test_what_never_began_has_no_sign_of_life_and_a_folder_without_its_file_is_named(
    call: Call, tmp_path: Path
) -> None:
    for name in ("begun", "lost"):
        (tmp_path / name).mkdir()
    (tmp_path / "lost" / "study.db").touch()
    (tmp_path / "notes").mkdir()
    (tmp_path / "begun" / "sweep.yaml").write_text(
        "name: begun\nmodel: base\ndata: {train: d.jsonl}\ntraining: {max_steps: 5}\n"
    )
    lines = call("list", tmp_path).out.splitlines()
    assert any(line.split() == [str(tmp_path / "begun"), "no", "trial", "0", "of", "32"] for line in lines)
    assert f"{tmp_path / 'lost'}: it holds no sweep.yaml" in lines
    assert not any("notes" in line for line in lines)


def test_without_runs_it_says_how_to_make_one(call: Call, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    assert (
        call("list", tmp_path).out
        == f"There is no run in {tmp_path}/. `sweeps demo` makes one, `sweeps run` yours.\n"
    )
    answer = call("list")
    assert (answer.code, answer.err) == (2, "error: there is no folder 'runs'\n")


def test_a_terminal_of_80_columns_is_wide_enough(watched: Make, monkeypatch: Any) -> None:
    ended = watched()
    ended.keeper.close()
    seen = in_terminal([sys.executable, "-m", "sweeps", "list"], cwd=ended.folder.parent.parent)
    assert seen.code == 0
    assert max(map(len, seen.lines)) <= 80
    assert seen.lines[1].startswith("runs/t  finished  6 of 6  2.")
