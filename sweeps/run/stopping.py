"""Stopping a sweep from another process: what it does then, and when it is done."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

from files_and_text.numbers import duration, plural
from sweeps.study.lease import Lease
from sweeps.study.status import Status

WAIT_SECONDS = 120.0
"""How long `sweeps stop` waits for the sweep to end; it ends without it too."""
_POLL_SECONDS = 0.25


def stopping_text(status: Status) -> str:
    """What a sweep does that was asked to stop; `status` is the one from before."""
    training = [trial for trial in status.running if trial.state == "training"]
    if not training:
        return "Stopping: no trial is training."
    seconds = "" if status.stop_seconds is None else f", about {duration(max(1.0, status.stop_seconds))}"
    return f"Stopping: {_writing(len(training))}{seconds}."


def _writing(count: int) -> str:
    one = "1 running trial writes a checkpoint"
    return one if count == 1 else f"{count} running trials write checkpoints"


def wait_for_end(
    lease: Lease,
    *,
    seconds: float = WAIT_SECONDS,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> bool:
    """Whether the process that holds the lease has ended within `seconds`."""
    until = clock() + seconds
    while lease.owner.is_alive:
        if clock() >= until:
            return False
        sleep(_POLL_SECONDS)
    return True


def stopped_lines(status: Status) -> Iterator[str]:
    """What is kept of a sweep that has stopped, and how it goes on."""
    kept = [f"{status.finished} of {plural(status.target, 'trial')} finished"]
    if paused := len(status.running):
        kept.append(f"{plural(paused, 'trial')} paused at {'its' if paused == 1 else 'their'} last step")
    yield f"Stopped: {', '.join(kept)}."
    if status.next_command is not None:
        yield f"Next  {status.next_command}"
