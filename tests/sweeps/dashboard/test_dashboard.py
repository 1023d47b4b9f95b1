"""What the dashboard shows, what it refuses, and how its command ends."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
import psutil
import pytest
from optuna_dashboard import wsgi

from sweeps.cli.main import main
from sweeps.dashboard.server import open_dashboard
from sweeps.dashboard.study_view import ReadOnlyError, StudyView, trial_note
from sweeps.errors import PortTaken, StudyHeld
from sweeps.storage.open_storage import open_storage
from sweeps.storage.optuna_private import storage_of, study_id_of
from sweeps.study.lease import DriverProcess
from sweeps.study.study import is_prefetched
from sweeps.sweep import Sweep


def whole_study(sweep: Sweep) -> Any:
    """Everything that stands in the study."""
    study = sweep.study()
    return study.user_attrs, storage_of(study).get_study_system_attrs(study_id_of(study)), study.get_trials()


def view_of(sweep: Sweep, *, writable: bool = False) -> StudyView:
    study = sweep.study()
    return StudyView(storage_of(study), study_id_of(study), writable=writable, study_note=lambda: "the note")


def routes(view: StudyView, method: str | None = None) -> list[tuple[str, str]]:
    """(method, path) of everything that optuna-dashboard answers, with ids that exist."""
    found = [(r.method, re.sub(r"<plot_type>", "timeline", r.rule)) for r in wsgi(view).routes]
    paths = [(m, re.sub(r"<[^>]*int>", "1", path)) for m, path in found]
    return [
        (m, re.sub(r"<[^<>]*(<.*>)?[^<>]*>", "", path)) for m, path in paths if method is None or m == method
    ]


# With few trials Optuna has little to tell about importance, and says so.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:optuna.importance")


# --- read-only ------------------------------------------------------------------------------------


def test_every_route_that_writes_is_refused_and_changes_nothing(watched, serve):
    sweep = watched().sweep
    before = whole_study(sweep)
    ask = serve(sweep)
    writing = [(method, path) for method, path in routes(view_of(sweep)) if method != "GET"]
    assert {m for m, _ in writing} >= {"POST", "PUT", "DELETE"}
    assert ("DELETE", "/api/studies/1") in writing
    assert ("POST", "/api/trials/1/tell") in writing
    for method, path in [*writing, ("PATCH", "/api/studies/1"), ("OPTIONS", "/api/studies"), ("TRACE", "/")]:
        answer = ask(path, method, {"state": "Fail", "user_attrs": {"a": 1}, "study_name": "x"})
        assert answer.code == 403, (method, path)
        assert "read-only" in answer.json["reason"]
    assert whole_study(sweep) == before


def test_every_route_that_reads_answers_and_changes_nothing(watched, serve, capfd):
    sweep = watched().sweep
    before = whole_study(sweep)
    ask = serve(sweep)
    for _, path in routes(view_of(sweep), "GET"):
        answer = ask(path)
        assert answer.code in (200, 302, 400, 404), path
        assert not [name for name in answer.headers if name.lower().startswith("access-control")]
    assert whole_study(sweep) == before
    assert capfd.readouterr() == ("", "")


def test_a_write_past_the_guard_does_not_reach_the_study(watched):
    sweep = watched().sweep
    before = whole_study(sweep)
    view = view_of(sweep)
    float_ = optuna.distributions.FloatDistribution(0, 1)
    running = optuna.trial.TrialState.RUNNING
    for write in (
        lambda: view.delete_study(1),
        lambda: view.create_new_study([optuna.study.StudyDirection.MINIMIZE]),
        lambda: view.set_study_user_attr(1, "a", 1),
        lambda: view.set_study_system_attr(1, "a", 1),
        lambda: view.create_new_trial(1),
        lambda: view.set_trial_param(1, "a", 0.5, float_),
        lambda: view.set_trial_state_values(1, running),
        lambda: view.set_trial_intermediate_value(1, 1, 1.0),
        lambda: view.set_trial_user_attr(1, "a", 1),
        lambda: view.set_trial_system_attr(1, "a", 1),
    ):
        with pytest.raises(ReadOnlyError):
            write()
    assert whole_study(sweep) == before


def test_another_name_for_this_machine_gets_nothing(watched, serve):
    ask = serve(watched(turns=1).sweep)
    for host in ("evil.example:8080", "127.0.0.1.evil.example", "localhost@evil.example", "0.0.0.0", ":80"):
        answer = ask("/api/studies", Host=host)
        assert answer.code == 403, host
        assert "study_summaries" not in answer.text


def test_the_loopback_interface_by_any_of_its_names_and_at_a_tunnels_port(watched, serve):
    ask = serve(watched(turns=1).sweep)
    assert ask.server.url.startswith("http://127.0.0.1:")
    for host in ("127.0.0.1", "localhost:9000", "[::1]:8080", "LOCALHOST"):
        assert ask("/api/studies", Host=host).code == 200


# --- writable -------------------------------------------------------------------------------------


def test_writable_takes_a_note_from_its_own_page_alone(watched, serve):
    sweep = watched().sweep
    ask = serve(sweep, writable=True)
    note = {"body": "look here", "version": 2}
    for headers in ({"Origin": "http://evil.example"}, {"Sec_Fetch_Site": "cross-site"}):
        assert ask("/api/studies/1/note", "PUT", note, **headers).code == 403
    own = {"Origin": ask.server.url, "Sec_Fetch_Site": "same-origin"}
    assert ask("/api/studies/1/note", "PUT", note, **own).code == 204
    assert ask("/api/studies/1").json["note"] == {"version": 2, "body": "look here"}
    assert "dashboard:note_ver" in whole_study(sweep)[1]


def test_writable_is_refused_while_the_sweep_runs_and_read_only_is_not(watched, serve):
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as driver:
        started = psutil.Process(driver.pid).create_time()
        sweep = watched(
            turns=1, owner=replace(DriverProcess.current("x"), pid=driver.pid, started=started)
        ).sweep
        with pytest.raises(StudyHeld):
            open_dashboard(sweep, writable=True)
        assert serve(sweep)("/api/studies/1").code == 200
        driver.kill()


def test_writable_is_refused_while_the_sweep_runs_on_another_machine(watched, serve, held_elsewhere):
    sweep = watched(turns=1).sweep
    held_elsewhere(sweep.storage_url, "t")
    with pytest.raises(StudyHeld, match="process 11 on node7"):
        open_dashboard(sweep, writable=True)
    assert serve(sweep)("/api/studies/1").code == 200


def test_other_studies_of_the_database_are_neither_shown_nor_deleted(watched, serve):
    sweep = watched().sweep
    other = optuna.create_study(storage=open_storage(sweep.storage_url), study_name="other")
    ask = serve(sweep, writable=True)
    assert [s["study_name"] for s in ask("/api/studies").json["study_summaries"]] == ["t"]
    assert ask(f"/api/studies/{study_id_of(other)}").code == 404
    assert ask(f"/api/studies/{study_id_of(other)}", "DELETE", {}).code == 404
    assert ask("/api/studies", "POST", {"study_name": "new", "directions": ["minimize"]}).code == 500
    names = {s.study_name for s in optuna.get_all_study_summaries(open_storage(sweep.storage_url))}
    assert names == {"t", "other"}


# --- what is shown --------------------------------------------------------------------------------


def test_trials_are_shown_with_name_outcome_reason_and_curve(watched, serve):
    sweep = watched().sweep
    shown = serve(sweep)("/api/studies/1").json
    stored = sweep.study().get_trials()
    assert shown["objective_names"] == ["eval_loss"]
    told = {a["key"]: a["value"] for a in shown["user_attrs"]}
    assert (told["metric"], told["scenario"]) == ("eval_loss", "general")
    assert not {"lease", "guidelines", "space", "identity", "context"} & set(told)
    assert len(shown["trials"]) == len(stored) == 6
    assert {t.user_attrs["outcome"] for t in stored} >= {"complete", "diverged"}
    for trial, kept in zip(shown["trials"], stored, strict=True):
        attributes = {a["key"]: a["value"] for a in trial["user_attrs"]}
        outcome, reason = kept.user_attrs["outcome"], kept.user_attrs["stop_reason"]
        assert list(attributes)[:2] == ["outcome", "stop_reason"]
        assert (attributes["outcome"], attributes["stop_reason"]) == (outcome, reason)
        assert f"**{outcome}**".replace("_", "\\_") in trial["note"]["body"]
        curve = {point["step"]: point["value"] for point in trial["intermediate_values"]}
        assert curve == kept.intermediate_values
        assert "warmup_steps" in attributes
        assert "config" not in attributes
    assert "**guideline default**" in shown["trials"][0]["note"]["body"]


def test_it_reads_and_writes_every_kind_of_storage(watched, serve, new_url):
    sweep = watched(turns=1, url=new_url("study")).sweep
    before = whole_study(sweep)
    ask = serve(sweep)
    study = ask("/").headers["Location"].rpartition("/")[2]
    trials = ask(f"/api/studies/{study}").json["trials"]
    assert {t["state"] for t in trials} >= {"Running", "Waiting"}
    assert any(t["intermediate_values"] for t in trials)
    assert ask(f"/api/studies/{study}", "DELETE", {}).code == 403
    assert whole_study(sweep) == before
    writable = serve(sweep, writable=True)
    note = {"body": "look here", "version": 2}
    assert writable(f"/api/studies/{study}/note", "PUT", note).code == 204
    assert "look here" in whole_study(sweep)[1].values()


def test_a_reason_is_shown_as_it_is_and_never_as_markup():
    trial = optuna.trial.create_trial(
        state=optuna.trial.TrialState.FAIL,
        user_attrs={"outcome": "out_of_memory", "stop_reason": "[x](http://e) <b>*at* 5_000</b>"},
    )
    note = trial_note(trial)
    assert note.startswith("**out\\_of\\_memory**: ")
    assert not re.search(r"(?<!\\)[\[\]<>()_]|(?<![\\*])\*(?!\*)", note.partition(": ")[2])


def test_a_trial_that_nobody_has_been_given_yet_is_waiting(watched, serve):
    running = watched(trials=20, turns=2)
    states = [t["state"] for t in serve(running.sweep)("/api/studies/1").json["trials"]]
    assert states.count("Running") == len(running.pack.seats)
    ahead = [trial.number for trial in running.sweep.study().trials if is_prefetched(trial)]
    assert ahead
    assert {states[number] for number in ahead} == {"Waiting"}


def test_the_report_is_linked_once_it_is_there_and_may_load_nothing(watched, serve):
    sweep = watched().sweep
    ask = serve(sweep)
    assert ask("/report").code == 404
    assert "sweeps report" in ask("/report").text
    assert 'href="/report"' not in ask("/dashboard").text
    assert "No report yet" in ask("/api/studies/1").json["note"]["body"]
    (sweep.run_folder / "report.html").write_text("<p>ä report</p>", encoding="utf-8")
    answer = ask("/report")
    assert (answer.code, answer.text) == (200, "<p>ä report</p>")
    assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
    assert "connect-src" not in answer.headers["Content-Security-Policy"]  # falls back to 'none'
    page = ask("/dashboard/studies/1")
    assert page.text.count('href="/report"') == 1
    assert page.text.rstrip().endswith("</html>")
    assert ask("/api/studies/1").json["note"]["body"] == "[Report of this sweep](/report)"
    assert ask("/").headers["Location"] == "/dashboard/studies/1"


def test_it_follows_a_study_that_is_being_written(watched, serve, monkeypatch):
    running = watched(trials=6, turns=1)
    ask = serve(running.sweep)
    assert not [t for t in ask("/api/studies/1").json["trials"] if t["state"] == "Complete"]
    running.pack.run()
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:  # it reads the trials at most every two seconds
        states = {t["state"] for t in ask("/api/studies/1").json["trials"]}
        if "Complete" in states and "Running" not in states:
            return
        time.sleep(0.2)
    pytest.fail(f"still {states}")


# --- secrets and ports ----------------------------------------------------------------------------


def test_a_password_shows_neither_at_the_start_nor_when_the_database_goes_away(
    watched, serve, monkeypatch, capfd
):
    sweep = watched().sweep
    ask = serve(sweep)

    def gone(*_: Any, **__: Any) -> Any:
        raise RuntimeError("connection to postgresql://me:hush@host/db failed")

    monkeypatch.setattr(StudyView, "get_all_studies", gone)
    answer = ask("/api/studies/1")
    assert answer.code == 500
    monkeypatch.setattr(StudyView, "get_study_name_from_id", gone)
    page = ask("/csv/1")  # a route that has no error handling of its own
    assert page.code == 500
    said = capfd.readouterr()
    assert "hush" not in answer.text + page.text + said.out + said.err
    assert "dashboard: GET /api/studies/1: 500" in said.err
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"postgresql+psycopg://me:hush@127.0.0.1:{taken.getsockname()[1]}/db"
        file = sweep.run_folder / "sweep.yaml"
        file.write_text(re.sub("storage: .*", "storage: env:THEIRS", file.read_text()))
        monkeypatch.setenv("THEIRS", url)
        with pytest.raises(SystemExit) as ended:
            main(["dashboard", str(sweep.run_folder)])
    said = capfd.readouterr()
    assert ended.value.code == 2
    assert said.err.startswith("error: storage postgresql+psycopg://me:***@127.0.0.1")
    assert "hush" not in said.out + said.err
    assert said.err.count("\n") == 1


def test_a_port_that_is_taken_is_an_error_when_asked_for_and_else_the_next_is_used(watched, capfd):
    sweep = watched(turns=1).sweep
    first = open_dashboard(sweep)
    second = open_dashboard(sweep)
    try:
        assert second.server_port > first.server_port >= 8080
        with pytest.raises(PortTaken):
            open_dashboard(sweep, port=first.server_port)
        with pytest.raises(SystemExit) as ended:
            main(["dashboard", str(sweep.run_folder), "--port", str(first.server_port)])
        assert ended.value.code == 2
        expected = (
            f"error: port {first.server_port} is taken; choose another, or leave out --port for the first "
            "free one\n"
        )
        assert capfd.readouterr().err == expected
    finally:
        first.server_close()
        second.server_close()


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
def test_the_command_says_where_it_is_and_ends_quietly(watched, stop):
    folder = watched().folder
    process = subprocess.Popen(
        [sys.executable, "-m", "sweeps", "dashboard", str(folder)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    line = process.stdout.readline()
    assert re.fullmatch(r"Dashboard of t: http://127\.0\.0\.1:\d+ \(read-only; Ctrl-C ends it\)\n", line)
    port = int(line.split(":")[3].split()[0])
    with socket.create_connection(("127.0.0.1", port)) as half_open:  # a browser that is still there
        process.send_signal(stop)
        out, err = process.communicate(timeout=20)
        half_open.close()
    assert (process.returncode, out, err) == (0, "Dashboard closed.\n", "")


def test_a_sweep_that_has_not_started_has_no_dashboard(tmp_path: Path, watched, capfd):
    sweep = watched(turns=1).sweep
    file = sweep.run_folder / "sweep.yaml"
    file.write_text(re.sub("storage: .*", f"storage: sqlite:///{tmp_path}/none.db", file.read_text()))
    with pytest.raises(SystemExit) as ended:
        main(["dashboard", str(sweep.run_folder)])
    assert ended.value.code == 2
    assert "has no study yet" in capfd.readouterr().err
    assert not (tmp_path / "none.db").exists()
