"""Workers that end before they can tell the keeper: our package, the job or the environment is missing there.

Ray Tune alone hears of them, as text. What it says goes to the keeper, which judges it as an error that a
worker reports itself (`starting.py`).
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
from sweeps.keeper.start_failures import MOST_SAID, StartFault

ANSWER_SECONDS = 60.0
NO_WORDS = "its process died before it could say anything"

_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_FAILURE = re.compile(r"^Failure # \d+ \(occurred at .*\)\n", re.MULTILINE)
"""The head that Tune puts above each error of a worker in its file."""
_FRAME = re.compile(r'^\s*File "([^<"][^"]*)", line (\d+)', re.MULTILINE)
_RAISED = re.compile(r"^([A-Za-z_][\w.]*): (.*)$", re.MULTILINE)
_ERRNO = re.compile(r"\[Errno (\d+)\]")
_PASSING = {
    "OutOfMemoryError",
    *(kind.__name__ for kind in (MemoryError, TimeoutError, ConnectionError)),
    *(kind.__name__ for kind in ConnectionError.__subclasses__()),
}


def fault_in(text: str) -> StartFault:
    """What Ray says of the end of a worker: an error of Python, an environment that fails, or else a death.

    A death may pass: of a node, or of a process that found no memory.
    """
    text = _COLOUR.sub("", _FAILURE.split(text)[-1]).strip()
    frames, raised = _FRAME.findall(text), _RAISED.findall(text)
    if frames and raised:
        name, words = raised[-1]
        number = _ERRNO.search(words)
        may_pass = name.rpartition(".")[2] in _PASSING or (
            number is not None and is_disk_trouble(OSError(int(number[1]), ""))
        )
        return _fault(f"{name}: {words}", text, place=":".join(frames[-1]), may_pass=may_pass)
    if re.search(r"runtime[ _]env", text):
        return _fault(text, text, may_pass=False)
    return _fault(text.partition("\n")[0] or NO_WORDS, text, may_pass=True)


def _fault(said: str, text: str, *, place: str = "", may_pass: bool) -> StartFault:
    said = " ".join(said.split())
    return StartFault(
        said=said if len(said) <= MOST_SAID else f"{said[:MOST_SAID]}...",
        place=place,
        traceback=text,
        is_bad_input=False,
        may_pass=may_pass,
    )


class TellOfEarlyEnds(tune.Callback):  # type: ignore[misc]  # Ray ships no types
    """Tells the keeper how a worker ended that never started, and does what it answers.

    `end` ends the whole fleet. A worker that is given up gets one more try by Tune, and no other.
    """

    def __init__(
        self, keeper: Any, num_workers: int, *, end: Callable[[], None], is_to_stop: Callable[[], bool]
    ) -> None:
        self._keeper = keeper
        self._num_workers = num_workers
        self._end = end
        self._is_to_stop = is_to_stop
        self._started: set[int] = set()
        """Workers whose present life has begun: they speak for themselves."""
        self.given_up: set[str] = set()
        """What was said of those that are given up; the keeper tells of them."""

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **_: Any) -> None:
        self._started.add(trial.config["worker"])
        trial.max_failures = -1

    def on_trial_recover(self, iteration: int, trials: list[Any], trial: Any, **_: Any) -> None:
        worker = trial.config["worker"]
        if worker in self._started:
            self._started.discard(worker)
            return
        fault = fault_in(_last_words(trial))
        call = self._keeper.ended_early.remote(worker, fault, self._num_workers)
        try:
            reply: Reply = ray.get(call, timeout=ANSWER_SECONDS)
        except ray.exceptions.GetTimeoutError:
            return  # the next end is told as well
        if reply.over:
            self._end()
        elif reply.stop:
            self.given_up.add(fault.said)
            trial.max_failures = 0
        elif not any(other.status == "RUNNING" for other in trials):
            self._wait(reply.pause_seconds)

    def _wait(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while time.monotonic() < until and not self._is_to_stop():
            time.sleep(0.2)

    def __getstate__(self) -> dict[str, Any]:
        """Tune keeps a copy on disk, which nobody ever reads."""
        return {}


def _last_words(trial: Any) -> str:
    try:
        return Path(trial.error_file).read_text(encoding="utf-8", errors="replace")
    except (OSError, TypeError):  # Tune could not write it
        return ""
