"""Workers that cannot start: which errors would come again, and what they mean for the fleet.

Kept in memory alone, as everything about workers: a keeper that is started anew counts from there.
"""

from __future__ import annotations

import re
import tempfile
import traceback
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from lora_runner.errors import RunnerError, is_device_error, is_disk_trouble
from sweeps.artifacts.worker_files import StoreAway
from sweeps.errors import ConfigError
from sweeps.storage.outages import is_outage

FILE = "start_error.txt"
"""In the run folder: the whole traceback of what no worker could start for."""
TRIES = 2
"""An error that comes this often with the same words will always come."""
MOST_SAID = 600
"""Characters of an error in a message."""

_HTTP = frozenset({"requests", "httpx", "httpcore", "urllib3", "aiohttp"})
_PASSING_STATUS = frozenset({408, 425, 429})
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
    """Why a worker could not start, as plain words: the error itself may not travel between processes."""

    said: str
    place: str
    """FILE:LINE of the code that raised it."""
    traceback: str
    is_bad_input: bool
    """Whether the error is about what was given: the model, the data, the sweep file."""
    may_pass: bool
    """Whether another try may do: memory, a device, a disk or a network that is away."""

    @classmethod
    def of(cls, error: BaseException) -> StartFault:
        """What remains of an error."""
        is_bad_input = isinstance(error, RunnerError | ConfigError)
        words = " ".join(str(error).split()) or "it says nothing"
        words = words if len(words) <= MOST_SAID else f"{words[:MOST_SAID]}..."
        frames = traceback.extract_tb(error.__traceback__)
        return cls(
            said=words if is_bad_input else f"{type(error).__name__}: {words}",
            place=f"{frames[-1].filename}:{frames[-1].lineno}" if frames else "",
            traceback="".join(traceback.format_exception(error)),
            is_bad_input=is_bad_input,
            may_pass=_may_pass(list(_chain(error))),
        )

    @property
    def key(self) -> str:
        """What is the same when it comes again."""
        return without_what_varies(f"{self.place} {self.said}")


def without_what_varies(text: str) -> str:
    """The words of an error that are the same when it comes again."""
    for pattern, stand_in in _VARYING:
        text = pattern.sub(stand_in, text)
    return text


def _chain(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    following: BaseException | None = error
    while following is not None and id(following) not in seen:
        seen.add(id(following))
        yield following
        following = following.__cause__ or following.__context__


def _may_pass(chain: Sequence[BaseException]) -> bool:
    # A ConnectionError by its type, but somebody wants it so.
    is_wanted = any(type(error).__name__ == "OfflineModeIsEnabled" for error in chain)
    return not is_wanted and any(map(_passes, chain))


def _passes(error: BaseException) -> bool:
    name = type(error).__name__
    if isinstance(error, MemoryError | StoreAway) or name == "OutOfMemoryError" or is_device_error(error):
        return True
    if "can't allocate memory" in str(error):  # torch, on a CPU
        return True
    packages = {base.__module__.partition(".")[0] for base in type(error).__mro__}
    status = getattr(getattr(error, "response", None), "status_code", None)
    if status is not None and packages & _HTTP:
        return bool(status >= 500 or status in _PASSING_STATUS)
    return bool(packages & (_HTTP | {"ray"})) or is_disk_trouble(error) or is_outage(error)


class Verdict(Enum):
    """What becomes of a worker that could not start, and of the fleet."""

    AGAIN = "it tries once more"
    GIVEN_UP = "it ends, and the others go on"
    OVER = "no worker can start"


class Starts:
    """Decides by what was heard of all workers of a run.

    An error that may pass is tried again. Any other is tried twice on a worker. One that has then come twice
    with the same words gives up the worker: its machine is broken. It ends the sweep when no other worker has
    ever started and not failed since, and either two workers said the same, or there is none that is still to
    be heard.
    """

    def __init__(self) -> None:
        self.fatal: StartFault | None = None
        """What ended the sweep."""
        self.workers: tuple[int, ...] = ()
        """Those that said it."""
        self._able: set[int] = set()
        """Workers that have started, and not failed to since."""
        self._given_up: set[int] = set()
        self._counts: defaultdict[str, Counter[int]] = defaultdict(Counter)
        self._last: dict[int, str] = {}

    def started(self, worker: int) -> None:
        """A worker has loaded the base and measured it."""
        self._able.add(worker)
        self._last.pop(worker, None)
        for count in self._counts.values():
            count.pop(worker, None)

    def last_words(self, worker: int) -> str | None:
        """Why the worker's last life could not start; None when that is not known. Read once."""
        return self._last.pop(worker, None)

    def failed(self, worker: int, fault: StartFault, num_workers: int) -> Verdict:
        """A worker of a fleet that has room for `num_workers` could not start."""
        self._able.discard(worker)
        self._last[worker] = f"{fault.said} ({fault.place})"
        if self.fatal is not None:
            return Verdict.OVER
        if fault.may_pass:
            return Verdict.AGAIN
        count = self._counts[fault.key]
        count[worker] += 1
        is_certain = count[worker] >= TRIES
        if is_certain:
            self._given_up.add(worker)
        nobody_else = len(self._given_up) >= num_workers
        if not self._able and (len(count) > 1 or (is_certain and nobody_else)):
            self.fatal, self.workers = fault, tuple(sorted(count))
            return Verdict.OVER
        return Verdict.GIVEN_UP if is_certain else Verdict.AGAIN

    def described(self, run_folder: Path) -> str:
        """The error that ended the sweep, for a person: what, where, how sure, and what to do."""
        assert self.fatal is not None
        said = self.fatal.said if self.fatal.is_bad_input else f"{self.fatal.said}\n  at {self.fatal.place}"
        names = " and ".join(map(str, self.workers[:2]))
        by = f"workers {names} said the same" if len(self.workers) > 1 else f"worker {names} said so twice"
        return (
            f"no worker can start: {said}\n"
            f"  {by}, so it would come again. Mend it and run the same command; nothing that was finished is "
            f"lost. Its traceback: {run_folder / FILE}"
        )
