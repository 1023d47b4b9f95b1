"""What the watch page shows of a sweep in each of its states, what it refuses, and how it stops a sweep."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from sweeps.study.lease import DriverProcess
from sweeps.study.progress_file import PROGRESS_FILE, write_progress
from sweeps.study.read_status import read_status
from sweeps.study.status import RunningTrial, Stage, Status
from sweeps.watch import words
from sweeps.watch.app import TOKEN_HEADER
from sweeps.watch.snapshot import LEAST_SECONDS, SnapshotReader, pause_after
from tests.sweeps.asking import Client
from tests.sweeps.watched_sweep import Watched

Serve = Callable[..., Client]
Make = Callable[..., Watched]


def text(ask: Client) -> dict[str, str]:
    """Part -> its text, tags left out; what is read aloud alone as well."""
    html = ask("/parts").json["html"]
    return {name: " ".join(re.sub(r"<[^>]+>", " ", part).split()) for name, part in html.items()}


def token_of(ask: Client) -> str:
    found = re.search(r'<meta name="watch-token" content="([^"]+)">', ask("/").text)
    assert found is not None
    return found[1]


@pytest.fixture
def driver() -> Iterator[tuple[subprocess.Popen[str], DriverProcess]]:
    """A process that waits, and its description as the owner of a lease."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, text=True) as process:
        started = psutil.Process(process.pid).create_time()
        yield process, replace(DriverProcess.current("x"), pid=process.pid, started=started)
        process.kill()


# --- states ---------------------------------------------------------------------------------------


def test_a_running_sweep_shows_its_trials_and_follows_them(watched: Make, serve: Serve) -> None:
    running = watched(turns=1)
    ask = serve(running.sweep)
    shown = text(ask)
    assert "Running" in shown["state"]
    assert "0 of 6 trials" in shown["state"]
    assert shown["trials"].startswith("Training now")
    assert "learning_rate 2e-4" in shown["trials"]  # the guideline default
    assert "No trial has finished its full budget yet. Leading now: loss" in shown["answer"]
    before = ask("/parts").headers["X-Version"]
    assert ask(f"/parts?have={before}").code == 204
    running.pack.run()
    answer = ask(f"/parts?have={before}")
    assert (answer.code, answer.json["title"].split()[0]) == (200, "6/6")
    shown = text(ask)
    assert shown["trials"] == ""
    assert "Use learning_rate" in shown["answer"]
    assert "Loss against learning rate" in shown["charts"]
    assert "All 6 trials" in shown["all_trials"]


def test_a_finished_sweep_shows_its_answer_and_what_to_do_next(watched: Make, serve: Serve) -> None:
    ended = watched()
    ended.keeper.close()
    ask = serve(ended.sweep)
    answer = ask("/parts").json
    assert answer["is_live"] is False
    assert answer["title"].endswith("t: finished")
    shown = text(ask)
    assert "Finished" in shown["state"]
    assert 'id="stop"' not in answer["html"]["state"]
    assert "Sure? Not yet: one run per configuration." in shown["answer"]
    assert re.search(r"Next sweeps confirm \S+ --no-rows --trials 6", shown["answer"])
    assert re.search(r"sweeps export \S+ --to trl", shown["answer"])


def test_an_interrupted_sweep_says_how_to_go_on(watched: Make, serve: Serve) -> None:
    stopped = watched(turns=2)
    stopped.keeper.close()
    shown = text(serve(stopped.sweep))
    told = r"Interrupted at \d\d:\d\d, just now. 3 trials wait to go on; nothing is lost."
    assert re.search(told, shown["state"])
    assert f"sweeps run {stopped.folder}" in shown["state"]
    assert shown["trials"].startswith("Paused")


def test_before_its_first_trial_a_sweep_has_not_started_or_is_starting(
    watched: Make, serve: Serve, tmp_path: Path
) -> None:
    sweep = watched(turns=1).sweep
    sweep.config = sweep.config.model_copy(update={"storage": f"sqlite:///{tmp_path}/none.db"})
    ask = serve(sweep)
    shown = text(ask)
    assert "Not started" in shown["state"]
    assert "sweeps run" in shown["state"]
    assert shown["answer"].endswith("No answer yet.")
    assert not (tmp_path / "none.db").exists()
    status = Status("t", 6, is_live=True, stages=[Stage(name="loading the base", worker=0)])
    write_progress(sweep.run_folder, status, DriverProcess.current("x"))
    shown = text(ask)
    assert "Starting" in shown["state"]
    assert "Worker 0: loading the base." in shown["state"]


def test_steps_speed_and_time_left_come_from_the_driver(watched: Make, serve: Serve) -> None:
    running = watched(turns=1)
    trial = RunningTrial(number=2, worker=0, seat=1, step=24, max_steps=40, percent=60, train_loss=1.234)
    status = replace(
        read_status(running.sweep.study(), 6),
        running=[trial, replace(trial, number=3, seat=2, state="paused")],
        seconds_left=120.0,
        elapsed_seconds=61.0,
        tokens_per_second=1234.0,
        devices=["NVIDIA H200"],
        events=["trial 0: started on worker 0, seat 0", "trial 1: <img src=x onerror=alert(1)> diverged"],
        num_put_back=1,
    )
    write_progress(running.folder, status, DriverProcess.current("x"))
    ask = serve(running.sweep)
    shown = text(ask)
    for told in (
        "started 1 min 1 s ago",
        "about 2 min left",
        "NVIDIA H200",
        "1,234 tokens/s",
        "1 trial tried again",
    ):
        assert told in shown["state"]
    assert "24/40 1.234" in shown["trials"]
    assert "3 paused" in shown["trials"]
    html = ask("/parts").json["html"]["events"]
    assert "&lt;img src=x onerror=alert(1)&gt; diverged" in html
    assert "started on" not in html
    write_progress(running.folder, replace(status, stopping=True), DriverProcess.current("x"))
    assert "Asked to stop" in text(ask)["state"]
    assert "disabled" in ask("/parts").json["html"]["state"]
    (running.folder / PROGRESS_FILE).unlink()
    assert "24/40" not in text(ask)["trials"]


def test_a_study_that_cannot_be_read_for_a_while_is_shown_as_it_was(watched: Make, serve: Serve) -> None:
    running = watched(turns=1)
    ask = serve(running.sweep)
    before = text(ask)
    database = Path(running.sweep.storage_url.removeprefix("sqlite:///"))
    kept = database.read_bytes()
    database.write_bytes(b"no database" * 1000)
    during = text(ask)
    assert re.search(r"The study cannot be read since \d\d:\d\d:\d\d: .*read last", during["state"])
    assert during["trials"] == before["trials"]
    assert "/study.db" in during["state"] or "storage" in during["state"]
    database.write_bytes(kept)
    assert text(ask) == before


def test_reading_takes_a_small_share_of_the_time() -> None:
    assert pause_after(0.01) == LEAST_SECONDS
    assert pause_after(1.0) == pytest.approx(20.0)


# --- what is refused ------------------------------------------------------------------------------


def test_another_name_for_this_machine_gets_nothing(watched: Make, serve: Serve) -> None:
    ask = serve(watched(turns=1).sweep)
    token = token_of(ask)
    for host in ("evil.example:8080", "127.0.0.1.evil.example", "0.0.0.0"):
        for path in ("/", "/parts", "/report", "/dashboard", "/api/studies"):
            answer = ask(path, Host=host)
            assert answer.code == 403, (host, path)
            assert token not in answer.text
    assert ask("/parts", Host="localhost:9000").code == 200  # by an SSH tunnel


def test_only_this_page_stops_the_sweep(watched: Make, serve: Serve, driver: Any) -> None:
    process, owner = driver
    ask = serve(watched(turns=1, owner=owner).sweep)
    token = token_of(ask)
    own = {"Origin": ask.server.url, "Sec_Fetch_Site": "same-origin", TOKEN_HEADER: token}
    assert ask("/stop").code == 405
    for wrong in (
        {TOKEN_HEADER: ""},
        {TOKEN_HEADER: token[:-1]},
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Sec_Fetch_Site": "cross-site"},
        {"Sec_Fetch_Site": "same-site"},
    ):
        assert ask("/stop", "POST", **(own | wrong)).code == 403, wrong
    assert ask("/stop", "POST", Origin=ask.server.url).code == 403  # without a token
    assert process.poll() is None
    assert ask("/stop", "POST", **own).code == 202
    assert process.wait(timeout=10) == -signal.SIGTERM
    assert "Interrupted" in text(ask)["state"]


def test_a_sweep_that_does_not_run_is_not_stopped(watched: Make, serve: Serve) -> None:
    ended = watched()
    ended.keeper.close()
    ask = serve(ended.sweep)
    answer = ask("/stop", "POST", **{TOKEN_HEADER: token_of(ask)})
    assert answer.code == 409
    assert "not running" in answer.json["reason"]


def test_the_page_loads_nothing_from_elsewhere_and_runs_its_own_scripts_alone(
    watched: Make, serve: Serve
) -> None:
    ask = serve(watched().sweep)
    answer = ask("/")
    policy = answer.headers["Content-Security-Policy"]
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    assert (rules["default-src"], rules["connect-src"], rules["frame-ancestors"]) == (
        "'none'",
        "'self'",
        "'none'",
    )
    scripts = re.findall(r"<script>(.*?)</script>", answer.text, re.DOTALL)
    assert len(scripts) == 2
    hashes = [base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts]
    assert rules["script-src"].split() == [f"'sha256-{found}'" for found in hashes]
    without_names = re.sub(r'xmlns="[^"]+"', "", answer.text)
    assert not re.search(
        r"https?://|//[a-z]+\.", re.sub(r"<script>.*?</script>", "", without_names, flags=re.DOTALL)
    )
    assert answer.headers["Cache-Control"] == "no-store"
    for path in ("/", "/parts"):
        assert not [name for name in ask(path).headers if name.lower().startswith("access-control")]


def test_optuna_dashboard_and_the_report_are_on_the_same_server_and_read_only(
    watched: Make, serve: Serve
) -> None:
    sweep = watched().sweep
    ask = serve(sweep)
    assert ask("/report").code == 404
    (sweep.run_folder / "report.html").write_text("<p>the report", encoding="utf-8")
    assert "default-src 'none'" in ask("/report").headers["Content-Security-Policy"]
    assert ask("/api/studies/1").json["trials"]
    assert ask("/api/studies/1", "DELETE", {}).code == 403
    assert ask("/dashboard").code == 200


def test_a_failure_shows_no_password(watched: Make, serve: Serve, monkeypatch: Any, capfd: Any) -> None:
    sweep = watched(turns=1).sweep
    ask = serve(sweep)

    def gone(*_: Any) -> Any:
        raise KeyError("postgresql://me:hush@host/db")

    monkeypatch.setattr("sweeps.watch.snapshot.read_status", gone)
    for _ in range(2):
        answer = ask("/parts")
        assert (answer.code, json.loads(answer.text)) == (
            500,
            {"reason": "this page failed; its terminal says more"},
        )
    out, err = capfd.readouterr()
    assert err.count("\n") == 1
    assert "KeyError in gone" in err
    assert "hush" not in out + err


def test_a_finished_sweep_with_frozen_trials_says_what_is_kept_and_where_each_stopped(watched: Make) -> None:
    sweep = watched().sweep
    ended = replace(SnapshotReader(sweep).snapshot(), state="finished", answer=sweep.answer)
    assert ended.status is not None
    assert ended.sweep is not None
    last = max(ended.sweep.trials, key=lambda trial: trial.number)
    frozen = replace(
        last, outcome="frozen", is_at_rest=True, num_steps=24, config={"max_steps": 40}, eval_loss=None
    )
    others = [trial for trial in ended.sweep.trials if trial is not last]
    snapshot = replace(
        ended,
        status=replace(ended.status, frozen_trials=[RunningTrial(number=last.number, state="at_rest")]),
        sweep=replace(ended.sweep, trials=[*others, frozen]),
    )
    assert words.facts(snapshot)[1:] == [
        "1 frozen trial keeps its checkpoint and may go on if `trials` is raised"
    ]
    assert words.facts(ended)[1:] == []
    [row] = [row for row in words.trial_rows(snapshot) if row.number == last.number]
    assert row.outcome == "frozen at step 24 of 40: kept on disk, may go on if `trials` is raised"
