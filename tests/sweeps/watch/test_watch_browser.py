"""The watch page in a real browser beside a sweep that is really running."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from selenium.webdriver.remote.webdriver import WebDriver

from tests.browser import console_errors, emulated, requested_urls
from tests.on_ray import ON_RAY

pytestmark = ON_RAY
FILE = """\
name: long
model: {model}
data: {{train: data.jsonl, eval_fraction: 0.2, max_length: 32, max_eval_examples: 4}}
training: {{max_steps: 4000, per_device_train_batch_size: 2, report_at: [0.01, 0.02, 0.04, 0.08, 0.16, 1.0]}}
lora: {{r: 2, alpha: 4}}
trials: 20
seats: 2
output: runs
"""
WIDTH = "return document.documentElement.scrollWidth"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, tiny_model: Callable[..., Path]) -> Path:
    folder = tmp_path_factory.mktemp("long")
    records = (json.dumps({"prompt": f"w{i}:", "completion": f"a{i}"}) for i in range(60))
    (folder / "data.jsonl").write_text("\n".join(records))
    (folder / "sweep.yaml").write_text(FILE.format(model=tiny_model("llama")))
    return folder


def started(folder: Path, *words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "sweeps", *words],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=os.environ | {"PYTHONUNBUFFERED": "1"},
    )


@pytest.fixture(scope="module")
def running(folder: Path) -> Iterator[subprocess.Popen[str]]:
    """The process of a sweep that has drawn its first trials."""
    process = started(folder, "run")

    def has_begun() -> bool:
        assert process.poll() is None, process.communicate()[0]
        return any(folder.glob("runs/long/trials/*"))

    try:
        until(has_begun, seconds=300)
        yield process
    finally:
        if process.poll() is None:
            process.terminate()
        process.communicate(timeout=60)


@pytest.fixture
def page(folder: Path, running: Any) -> Iterator[tuple[str, Callable[[], None], Callable[[], str]]]:
    """Address of the page of that sweep, and how to end and start its server again at the same port."""
    served: list[subprocess.Popen[str]] = []

    def start(*port: str) -> str:
        served.append(started(folder, "watch", "runs/long", *port))
        assert served[-1].stdout is not None
        found = re.search(r"http://127\.0\.0\.1:(\d+)", served[-1].stdout.readline())
        assert found is not None
        return found[1]

    def end() -> None:
        served[-1].terminate()
        out, _ = served[-1].communicate(timeout=30)
        assert (served[-1].returncode, out) == (0, "Page closed.\n")

    port = start()
    try:
        yield f"http://127.0.0.1:{port}/", end, lambda: start("--port", port)
    finally:
        if served[-1].poll() is None:
            end()


def until(true: Callable[[], Any], seconds: float = 90) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := true()):
        assert time.monotonic() < deadline, f"not within {seconds:g} s"
        time.sleep(0.1)
    return found


def shown(browser: WebDriver, part: str) -> str:
    return str(
        browser.execute_script("return document.getElementById(arguments[0]).innerText", f"part-{part}")
    )


def click(browser: WebDriver, name: str) -> None:
    # A part may be put in anew between finding and clicking: by its id, in the page itself.
    browser.execute_script("document.getElementById(arguments[0]).click()", name)


def is_open(browser: WebDriver) -> bool:
    return bool(browser.execute_script("return document.getElementById('stop-dialog').open"))


def test_the_page_follows_a_running_sweep_survives_its_server_and_stops_the_sweep(
    running: subprocess.Popen[str], page: Any, browser: WebDriver
) -> None:
    address, end_server, start_server = page
    console_errors(browser), requested_urls(browser)
    browser.get(address)
    assert any(word in shown(browser, "state") for word in ("Starting", "Running"))
    until(lambda: "Training now" in shown(browser, "trials"), seconds=300)
    assert "Running" in shown(browser, "state")

    # New values come without a reload, from this server alone.
    browser.execute_script("window.kept = true")
    first = shown(browser, "trials")
    until(lambda: re.search(r"[1-9]\d*/4000", shown(browser, "trials")) and shown(browser, "trials") != first)
    assert browser.execute_script("return window.kept")
    assert console_errors(browser) == []
    assert all(url.startswith(address) for url in requested_urls(browser))

    for width, scheme in ((1280, "light"), (390, "dark")):
        with emulated(browser, width=width, scheme=scheme):
            assert browser.execute_script(WIDTH) <= width
            paper = browser.execute_script("return getComputedStyle(document.body).backgroundColor")
            assert (paper == "rgb(255, 255, 255)") == (scheme == "light")

    # A tab that nobody looks at asks nothing; it asks at once when it is looked at again.
    browser.execute_script(
        "Object.defineProperty(document, 'hidden', {get: () => window.away, configurable: true})"
    )
    asked = "return Number(document.documentElement.dataset.asked)"
    browser.execute_script("window.away = true")
    until(lambda: not browser.execute_script("return document.documentElement.dataset.asking"))
    requested_urls(browser)
    for _ in range(5):
        browser.execute_script("document.dispatchEvent(new Event('visibilitychange'))")
    assert requested_urls(browser) == []
    before = browser.execute_script(asked)
    browser.execute_script("window.away = false; document.dispatchEvent(new Event('visibilitychange'))")
    until(lambda: browser.execute_script(asked) > before)

    # The server goes away and comes back.
    end_server()
    gone = "return !document.getElementById('gone').hidden"
    until(lambda: browser.execute_script(gone))
    assert "sweeps watch runs/long" in browser.execute_script(
        "return document.getElementById('gone').innerText"
    )
    start_server()
    until(lambda: browser.execute_script("return !window.kept && document.readyState == 'complete'"))
    assert not browser.execute_script(gone)
    assert "Running" in shown(browser, "state")

    # Stop asks first.
    click(browser, "stop")
    assert is_open(browser)
    click(browser, "stop-no")
    assert not is_open(browser)
    assert running.poll() is None
    click(browser, "stop")
    click(browser, "stop-yes")
    out, _ = running.communicate(timeout=60)
    assert running.returncode == 130, out
    until(lambda: "Interrupted" in shown(browser, "state"))
    assert "sweeps run runs/long" in shown(browser, "state")
    assert "2 trials wait to go on" in shown(browser, "state")
    assert shown(browser, "trials").startswith("Paused")
    assert not is_open(browser)
