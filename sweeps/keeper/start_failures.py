"""Workers that cannot start: which errors are worth a retry, when a worker is given up, when the sweep ends.

Kept in memory only: a restarted keeper begins to count again.
"""

from __future__ import annotations

import re
import tempfile
import traceback
from collections import Counter, defaultdict
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from lora_runner.errors import RunnerError, is_device_error, is_disk_trouble
from sweeps.artifacts.worker_files import StoreUnreachable
from sweeps.errors import ConfigError
from sweeps.storage.outages import error_chain, is_outage

START_ERROR_FILE = "start_error.txt"
"""In the run folder: the traceback of the error that kept every worker from starting."""
MAX_TRIES = 2
"""An error that a worker reports this often with the same text counts as permanent."""
MAX_MESSAGE_LENGTH = 600

_HTTP_PACKAGES = frozenset({"requests", "httpx", "httpcore", "urllib3", "aiohttp"})
_TRANSIENT_STATUS = frozenset({408, 425, 429})
_VARYING = [
    (re.compile(pattern), f"<{what}>")
    for pattern, what in (
        (re.escape(tempfile.gettempdir()) + r"/[^\s'\"]+", "temporary"),
        (r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(?:[.,]\d+)?", "time"),
        (r"0x[0-9a-fA-F]+", "address"),
        (r"(?i)\b(?:pid|process|thread|port|fd)\b\W{0,3}\d+", "process"),
        (r"\b(?=[0-9a-f-]*\d)[0-9a-f]{8}[0-9a-f-]*\b", "digits"),
        (r"\b\d+(?:\.\d+)? ?(?:s|ms|seconds)\b", "duration"),
    )
]


@dataclass(frozen=True, kw_only=True)
class StartFault:
    """Why a worker could not start, as text: the exception itself may not survive pickling."""

    message: str
    location: str
    """FILE:LINE of the code that raised it."""
    traceback: str
    is_bad_input: bool
    """Whether the error is about the user's input: the model, the data, the sweep file."""
    is_transient: bool
    """Whether a retry may succeed: memory, a device, or a disk or network that is away."""

    @classmethod
    def from_error(cls, error: BaseException) -> StartFault:
        """What the keeper needs to know of an error."""
        is_bad_input = isinstance(error, RunnerError | ConfigError)
        message = shortened(" ".join(str(error).split()) or "no message")
        frames = traceback.extract_tb(error.__traceback__)
        return cls(
            message=message if is_bad_input else f"{type(error).__name__}: {message}",
            location=f"{frames[-1].filename}:{frames[-1].lineno}" if frames else "",
            traceback="".join(traceback.format_exception(error)),
            is_bad_input=is_bad_input,
            is_transient=_is_transient(error),
        )

    @property
    def key(self) -> str:
        """Equal for two occurrences of one error."""
        return normalized(f"{self.location} {self.message}")


def shortened(message: str) -> str:
    """A message cut to `MAX_MESSAGE_LENGTH` characters."""
    return message if len(message) <= MAX_MESSAGE_LENGTH else f"{message[:MAX_MESSAGE_LENGTH]}..."


def normalized(text: str) -> str:
    """An error's text without what differs between occurrences: addresses, times, process numbers."""
    for pattern, stand_in in _VARYING:
        text = pattern.sub(stand_in, text)
    return text


def _is_transient(error: BaseException) -> bool:
    chain = list(error_chain(error, lambda each: each.__cause__ or each.__context__))
    # By its type a ConnectionError, but set on purpose (HF_HUB_OFFLINE).
    is_offline_mode = any(type(each).__name__ == "OfflineModeIsEnabled" for each in chain)
    return not is_offline_mode and any(map(_may_pass, chain))


def _may_pass(error: BaseException) -> bool:
    name = type(error).__name__
    if (
        isinstance(error, MemoryError | StoreUnreachable)
        or name == "OutOfMemoryError"
        or is_device_error(error)
    ):
        return True
    if "can't allocate memory" in str(error):  # torch, on a CPU
        return True
    packages = {base.__module__.partition(".")[0] for base in type(error).__mro__}
    status = getattr(getattr(error, "response", None), "status_code", None)
    if status is not None and packages & _HTTP_PACKAGES:
        return bool(status >= 500 or status in _TRANSIENT_STATUS)
    return bool(packages & (_HTTP_PACKAGES | {"ray"})) or is_disk_trouble(error) or is_outage(error)


class StartDecision(Enum):
    """What happens after a worker could not start."""

    RETRY = "trying again"
    GIVE_UP = "given up, the others go on"
    END_SWEEP = "no worker can start"


class StartFailures:
    """Decides from the failed starts of all workers of a run.

    A transient error is retried. Any other is retried once in a new process. A worker that reports it twice
    with the same text is given up: its machine is broken. The sweep ends if no other worker is able to start,
    and either two workers reported the same error or every worker has been given up.
    """

    def __init__(self) -> None:
        self.fatal: StartFault | None = None
        """The error that ended the sweep."""
        self.fatal_workers: tuple[int, ...] = ()
        """The workers that reported it."""
        self._able: set[int] = set()
        """Workers whose last start succeeded."""
        self._given_up: set[int] = set()
        self._counts: defaultdict[str, Counter[int]] = defaultdict(Counter)
        self._last_errors: dict[int, str] = {}

    def record_success(self, worker: int) -> None:
        """A worker has completed its start."""
        self._able.add(worker)
        self._last_errors.pop(worker, None)
        for count in self._counts.values():
            count.pop(worker, None)

    def pop_last_error(self, worker: int) -> str | None:
        """Why the worker's previous start failed; None if that is not known. Given once."""
        return self._last_errors.pop(worker, None)

    def record_failure(self, worker: int, fault: StartFault, num_workers: int) -> StartDecision:
        """A worker could not start, in a fleet with room for `num_workers`."""
        self._able.discard(worker)
        self._last_errors[worker] = f"{fault.message} ({fault.location})"
        if self.fatal is not None:
            return StartDecision.END_SWEEP
        if fault.is_transient:
            return StartDecision.RETRY
        count = self._counts[fault.key]
        count[worker] += 1
        is_permanent = count[worker] >= MAX_TRIES
        if is_permanent:
            self._given_up.add(worker)
        all_given_up = len(self._given_up) >= num_workers
        if not self._able and (len(count) > 1 or (is_permanent and all_given_up)):
            self.fatal, self.fatal_workers = fault, tuple(sorted(count))
            return StartDecision.END_SWEEP
        return StartDecision.GIVE_UP if is_permanent else StartDecision.RETRY

    def fatal_message(self, run_folder: Path) -> str:
        """The error that ended the sweep: what it is, where it was raised, and what to do."""
        assert self.fatal is not None
        fault = self.fatal
        error = fault.message if fault.is_bad_input else f"{fault.message}\n  at {fault.location}"
        names = " and ".join(map(str, self.fatal_workers[:2]))
        seen = f"workers {names}" if len(self.fatal_workers) > 1 else f"worker {names}, twice"
        return (
            f"no worker can start: {error}\n"
            f"  reported by {seen}. Fix it and run the same command; finished trials are kept. "
            f"Traceback: {run_folder / START_ERROR_FILE}"
        )
