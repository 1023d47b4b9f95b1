"""Workers that end before they can call the keeper: a node lacks a package or its environment fails.

Only Ray Tune notices, and gives their error as text. It is passed to the keeper, which treats it like an
error that a worker reports itself (`keeper/start_failures.py`).
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ray
from ray import tune

from lora_runner.errors import is_disk_trouble
from sweeps.keeper.protocol import Reply
from sweeps.keeper.start_failures import StartFault, shortened

REPLY_SECONDS = 60.0
NO_MESSAGE = "its process died before it could report an error"

_ANSI_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_FAILURE = re.compile(r"^Failure # \d+ \(occurred at .*\)\n", re.MULTILINE)
"""The heading of each error in the file that Tune keeps for a worker."""
_FRAME = re.compile(r'^\s*File "([^<"][^"]*)", line (\d+)', re.MULTILINE)
_RAISED = re.compile(r"^([A-Za-z_][\w.]*): (.*)$", re.MULTILINE)
_ERRNO = re.compile(r"\[Errno (\d+)\]")
_TRANSIENT = {
    "OutOfMemoryError",
    *(kind.__name__ for kind in (MemoryError, TimeoutError, ConnectionError)),
    *(kind.__name__ for kind in ConnectionError.__subclasses__()),
}


def parse_ray_error(text: str) -> StartFault:
    """What Ray writes when a worker ends: a Python error, an environment that fails, or a death.

    A death counts as transient: a node may have gone, or the process may have run out of memory.
    """
    text = _ANSI_COLOUR.sub("", _FAILURE.split(text)[-1]).strip()
    frames, raised = _FRAME.findall(text), _RAISED.findall(text)
    if frames and raised:
        name, message = raised[-1]
        number = _ERRNO.search(message)
        is_transient = name.rpartition(".")[2] in _TRANSIENT or (
            number is not None and is_disk_trouble(OSError(int(number[1]), ""))
        )
        return _fault(f"{name}: {message}", text, location=":".join(frames[-1]), is_transient=is_transient)
    if re.search(r"runtime[ _]env", text):
        return _fault(text, text, is_transient=False)
    return _fault(text.partition("\n")[0] or NO_MESSAGE, text, is_transient=True)


def _fault(message: str, text: str, *, location: str = "", is_transient: bool) -> StartFault:
    return StartFault(
        message=shortened(" ".join(message.split())),
        location=location,
        traceback=text,
        is_bad_input=False,
        is_transient=is_transient,
    )


class ReportEarlyExits(tune.Callback):  # type: ignore[misc]  # Ray ships no types
    """Reports to the keeper the error of a worker that never called it, and follows the reply.

    `end` ends the whole fleet. Tune restarts a worker that is given up once more, then no longer.
    """

    def __init__(
        self, keeper: Any, num_workers: int, *, end: Callable[[], None], is_to_stop: Callable[[], bool]
    ) -> None:
        self._keeper = keeper
        self._num_workers = num_workers
        self._end = end
        self._is_to_stop = is_to_stop
        self._started: set[int] = set()
        """Workers whose present process runs: they report their errors themselves."""
        self.given_up: set[str] = set()
        """Errors of workers that are given up; the keeper lists them."""

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **_: Any) -> None:
        self._started.add(trial.config["worker"])
        trial.max_failures = -1

    def on_trial_recover(self, iteration: int, trials: list[Any], trial: Any, **_: Any) -> None:
        worker = trial.config["worker"]
        if worker in self._started:
            self._started.discard(worker)
            return
        fault = parse_ray_error(_error_text(trial))
        reply_ref = self._keeper.report_early_exit.remote(worker, fault, self._num_workers)
        try:
            reply: Reply = ray.get(reply_ref, timeout=REPLY_SECONDS)
        except ray.exceptions.GetTimeoutError:
            return  # the next early exit is reported too
        if reply.fleet_done:
            self._end()
        elif reply.stop:
            self.given_up.add(fault.message)
            trial.max_failures = 0
        elif not any(other.status == "RUNNING" for other in trials):
            self._wait(reply.pause_seconds)

    def _wait(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while time.monotonic() < until and not self._is_to_stop():
            time.sleep(0.2)

    def __getstate__(self) -> dict[str, Any]:
        """Tune pickles its callbacks to disk; nothing reads them back."""
        return {}


def _error_text(trial: Any) -> str:
    try:
        return Path(trial.error_file).read_text(encoding="utf-8", errors="replace")
    except (OSError, TypeError):  # Tune could not write it
        return ""
