"""The dashboard in a real browser, on a study that another process writes to."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

from sweeps.sweep import Sweep
from tests.browser import console_errors

pytestmark = [
    pytest.mark.slow,
    # With few trials Optuna has little to tell about importance, and says so.
    pytest.mark.filterwarnings("ignore::UserWarning:optuna.importance"),
]
WRITER = """
import sys
import optuna
study = optuna.load_study(study_name="t", storage=sys.argv[1])
(running,) = [t for t in study.get_trials() if t.state.name == "RUNNING" and "attempt" in t.user_attrs][:1]
print(running.number, flush=True)
trial = optuna.trial.Trial(study, running._trial_id)
for percent in range(60, 101, 10):
    trial.report(2.0 - percent / 1000, percent)
trial.set_user_attr("outcome", "pruned")
trial.set_user_attr("stop_reason", "written by another process")
study.tell(trial, state=optuna.trial.TrialState.PRUNED)
"""
PLOTS = """
return [...document.querySelectorAll('.js-plotly-plot')].map(plot => [
  plot.querySelectorAll('.point, .js-line').length,
  plot.layout?.xaxis?.title?.text || plot.layout?.title?.text || ''])
"""


def until(true: Callable[[], Any], seconds: float = 20) -> Any:
    """Wait until `true()` is, as a browser draws when it gets to it."""
    from selenium.webdriver.support.wait import WebDriverWait

    return WebDriverWait(true, seconds, 0.2).until(lambda call: call())


def text(browser: Any) -> str:
    return str(browser.execute_script("return document.body.innerText"))


def drawn(browser: Any) -> list[list[Any]]:
    """(number of points and lines, axis title) of every plot."""
    return [plot for plot in browser.execute_script(PLOTS) if plot[0]]


def test_the_pages_load_without_errors_and_the_plots_are_drawn(watched, serve, browser):
    sweep: Sweep = watched(trials=10).sweep
    (sweep.run_folder / "report.html").write_text("<title>Report</title><p>the report", encoding="utf-8")
    ask = serve(sweep)
    browser.get(ask.server.url)
    until(lambda: len(drawn(browser)) >= 4)  # history, importance, timeline, curves
    assert browser.current_url.endswith("/dashboard/studies/1")
    assert {"Trial", "Step"} <= {title for _, title in drawn(browser)}
    shown = text(browser)
    for expected in ("Best Trial", "eval_loss", "Intermediate values", "Hyperparameter Importance"):
        assert expected in shown
    assert console_errors(browser) == []

    diverged = next(t for t in sweep.study().trials if t.user_attrs["outcome"] == "diverged")
    browser.get(f"{ask.server.url}/dashboard/studies/1/trials?numbers={diverged.number}")
    until(lambda: diverged.user_attrs["stop_reason"] in text(browser))
    shown = text(browser)
    assert f"diverged: {diverged.user_attrs['stop_reason']}" in shown  # the note
    assert "outcome\ndiverged" in shown.replace(" ", "\n")  # the attributes
    assert console_errors(browser) == []

    browser.find_element("link text", "Report").click()
    until(lambda: browser.title == "Report")
    assert browser.current_url == f"{ask.server.url}/report"
    assert console_errors(browser) == []


def test_a_page_can_neither_delete_nor_tell_in_read_only_mode(watched, serve, browser):
    sweep: Sweep = watched(turns=1).sweep
    browser.get(serve(sweep).server.url)
    send = """
      const [path, method, done] = arguments;
      fetch(path, {method, headers: {'Content-Type': 'application/json'}, body: '{"state": "Fail"}'})
        .then(answer => done(answer.status), error => done(String(error)));
    """
    before = sweep.study().get_trials()
    assert browser.execute_async_script(send, "/api/studies/1", "DELETE") == 403
    assert browser.execute_async_script(send, "/api/trials/1/tell", "POST") == 403
    assert sweep.study().get_trials() == before
    assert all("403" in message for message in console_errors(browser))


def test_an_open_page_follows_what_another_process_writes(watched, serve, browser):
    sweep: Sweep = watched(turns=2).sweep
    browser.get(f"{serve(sweep).server.url}/dashboard/studies/1/trials")
    until(lambda: "Running" in text(browser))
    writer = [sys.executable, "-c", WRITER, sweep.storage_url]
    done = subprocess.run(writer, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    browser.get(f"{browser.current_url.partition('?')[0]}?numbers={done.stdout.strip()}")
    until(lambda: "pruned: written by another process" in text(browser))
    assert console_errors(browser) == []
