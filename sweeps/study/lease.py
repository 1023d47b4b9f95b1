"""One keeper per study: a lease that stands in the study itself.

The lease is a value that its holder exchanges for the next one at the head of every transaction. Whoever took
the study meanwhile has put another value there, the exchange fails, and the transaction with it: a keeper
that lost its lease can write nothing, whatever it still believes. No two machines' clocks are compared: who
wants a study that somebody holds looks whether the value changes while it waits.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import secrets
import socket
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import optuna
import psutil

from sweeps.errors import LeaseLost, StudyHeld
from sweeps.storage.study_storage import StudyStorage

LEASE = "lease"
"""The study's user attribute."""
BEAT_SECONDS = 5.0
"""A keeper that writes nothing else gives a sign of life this often."""
_LOOK_SECONDS = 0.5


@dataclass(frozen=True, kw_only=True)
class DriverProcess:
    """The driver on whose behalf a keeper works."""

    run: str
    """Of this start of the sweep."""
    host: str
    place: str
    """Host, boot and process namespace: only there does the process number mean anything."""
    pid: int
    started: float
    """Of the process, so that another one with its number is not taken for it."""

    @classmethod
    def current(cls, run: str) -> DriverProcess:
        """This process."""
        me = psutil.Process()
        return cls(run=run, host=socket.gethostname(), place=_place(), pid=me.pid, started=me.create_time())

    @property
    def is_alive(self) -> bool | None:
        """Whether the driver still runs; None when that cannot be seen from here."""
        if self.place != _place():
            return None
        try:
            process = psutil.Process(self.pid)
            gone = process.status() == psutil.STATUS_ZOMBIE or abs(process.create_time() - self.started) > 1
        except psutil.NoSuchProcess:
            return False
        return not gone

    def is_same_process(self, other: DriverProcess) -> bool:
        """Whether both stand for one driver."""
        return (self.place, self.pid) == (other.place, other.pid) and abs(self.started - other.started) <= 1


@dataclass(frozen=True, kw_only=True)
class Lease:
    """What stands in the study."""

    owner: DriverProcess
    keeper: str
    """Of this life of the keeper: one that was started anew is another."""
    beat: int
    """Counted up with every transaction."""
    released: bool = False
    seen: float = 0.0
    """Wall clock of the holder at its last sign of life, for people to read."""

    @classmethod
    def from_text(cls, text: str) -> Lease:
        """Read what the study holds."""
        values = json.loads(text)
        return cls(**{**values, "owner": DriverProcess(**values["owner"])})

    def to_text(self) -> str:
        """As the study holds it."""
        return json.dumps(asdict(self), sort_keys=True)

    def holder(self) -> str:
        """Who holds it, in words."""
        seen = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(self.seen))
        return f"process {self.owner.pid} on {self.owner.host}, last sign of life {seen}"


def lease_of(study: optuna.Study) -> Lease | None:
    """Who holds a study, or held it last; None when nobody ever did."""
    text = study.user_attrs.get(LEASE)
    return None if text is None else Lease.from_text(text)


def refuse_if_held(study: optuna.Study, me: DriverProcess) -> Lease | None:
    """StudyHeld when another living process of this machine holds the study; the lease when one elsewhere
    may.

    For a driver to call before it starts a keeper, which has the last word.
    """
    lease = lease_of(study)
    if lease is None or lease.released or lease.owner.is_same_process(me):
        return None
    alive = lease.owner.is_alive
    if alive:
        raise StudyHeld(_refusal(study.study_name, lease))
    return lease if alive is None else None


def wait_until_free(
    read: Callable[[], Lease | None], me: DriverProcess, *, name: str, seconds: float
) -> Lease | None:
    """The lease that may be taken over, or None where there never was one.

    A lease is free when it was given back, when its driver is dead, when it is this very process's, and when
    it has not changed for `seconds`. Raises StudyHeld when another living keeper exchanges it.
    """
    first = read()
    if first is None or first.released or first.owner.is_same_process(me):
        return first
    alive = first.owner.is_alive
    if alive:
        raise StudyHeld(_refusal(name, first))
    if alive is False:
        return first
    waited_since = time.monotonic()
    while time.monotonic() - waited_since < seconds:
        time.sleep(min(_LOOK_SECONDS, seconds))
        now = read()
        if now is not None and now.released:
            return now
        if now != first:
            raise StudyHeld(_refusal(name, now or first))
    return first


def refuse_unless_free(study: optuna.Study, *, seconds: float) -> None:
    """StudyHeld when anybody living works on the study, here or elsewhere.

    For what writes to a study without taking its lease. A holder elsewhere is watched for up to `seconds`.
    """
    me = DriverProcess.current(secrets.token_hex(8))
    wait_until_free(lambda: lease_of(study), me, name=study.study_name, seconds=seconds)


def _refusal(name: str, lease: Lease) -> str:
    return (
        f"the study {name!r} is being worked on by another sweep ({lease.holder()}); "
        "stop that one, or wait until it has ended"
    )


class HeldLease:
    """A lease in one's own hand. `renew` belongs at the head of every transaction, inside it."""

    def __init__(self, study_id: int, name: str, owner: DriverProcess, found: Lease | None) -> None:
        """`found` is the lease in whose place the first `renew` puts this one's own."""
        self._study_id = study_id
        self._name = name
        self._mine = Lease(owner=owner, keeper=secrets.token_hex(8), beat=0 if found is None else found.beat)
        self._held = found
        """What stands in the study, as far as is known."""
        self._beaten_at = -math.inf

    @property
    def is_due(self) -> bool:
        """Whether it is time for a sign of life."""
        return time.monotonic() - self._beaten_at >= BEAT_SECONDS

    def renew(self, storage: StudyStorage) -> Lease:
        """Exchange the lease for its next value; LeaseLost when another keeper's stands there.

        Call `kept` with the result once the transaction stands.
        """
        following = self._following()
        if not self._exchange(storage, following):
            # A commit may have gone through without its answer: then it is our own that stands there.
            text = storage.get_study_user_attrs(self._study_id).get(LEASE)
            current = None if text is None else Lease.from_text(text)
            if current is None or current.keeper != self._mine.keeper:
                raise LeaseLost(
                    f"the study {self._name!r} was taken over by another sweep; this one writes nothing more"
                )
            self.kept(current)
            following = self._following()
            if not self._exchange(storage, following):
                raise LeaseLost(f"the lease of the study {self._name!r} cannot be renewed")
        return following

    def kept(self, lease: Lease) -> None:
        """The transaction that exchanged the lease stands."""
        self._mine = self._held = lease
        self._beaten_at = time.monotonic()

    def release(self, storage: StudyStorage) -> None:
        """Give the lease back, inside a transaction; nothing when another keeper has it."""
        self._exchange(storage, replace(self._following(), released=True))

    def _following(self) -> Lease:
        return replace(self._mine, beat=self._mine.beat + 1, seen=time.time())

    def _exchange(self, storage: StudyStorage, following: Lease) -> bool:
        held = None if self._held is None else self._held.to_text()
        return storage.exchange_study_attr(self._study_id, LEASE, held, following.to_text())


def _place() -> str:
    parts = [socket.gethostname()]
    with contextlib.suppress(OSError):  # not Linux: the host's name has to do
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip())
        parts.append(os.readlink("/proc/self/ns/pid"))
    return " ".join(parts)
