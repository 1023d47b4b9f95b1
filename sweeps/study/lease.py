"""One keeper per study, by a lease stored in the study itself.

At the start of every transaction the keeper exchanges the lease for its next value. If another keeper has
taken the study over, the stored value is another one: the exchange fails and the transaction with it, so a
keeper that lost its lease writes nothing more. Clocks of two machines are never compared: a keeper that wants
a study held elsewhere waits and looks whether the lease changes. A copied file holds the lease of the file it
was copied from, which nobody holds here.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import secrets
import socket
import time
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import optuna
import psutil

from sweeps.errors import LeaseLost, StudyHeld
from sweeps.storage.journal_storage import journal_path
from sweeps.storage.open_storage import sqlite_file
from sweeps.storage.optuna_private import url_of
from sweeps.storage.study_storage import StudyStorage

LEASE = "lease"
"""The study's user attribute that holds the lease."""
BEAT_SECONDS = 5.0
"""A keeper without other writes renews its lease this often."""
_POLL_SECONDS = 0.5


@dataclass(frozen=True, kw_only=True)
class DriverProcess:
    """The driver process that a keeper works for."""

    run: str
    """Random, new with every start of the sweep."""
    host: str
    place: str
    """Host, boot and process namespace, within which `pid` is unique."""
    pid: int
    started: float
    """Creation time, which tells the process from a later one with the same number."""

    @classmethod
    def current(cls, run: str) -> DriverProcess:
        me = psutil.Process()
        return cls(
            run=run, host=socket.gethostname(), place=_pid_namespace(), pid=me.pid, started=me.create_time()
        )

    @property
    def is_alive(self) -> bool | None:
        """Whether the driver still runs; None when it is on another machine or in another namespace."""
        if self.place != _pid_namespace():
            return None
        try:
            process = psutil.Process(self.pid)
            gone = process.status() == psutil.STATUS_ZOMBIE or abs(process.create_time() - self.started) > 1
        except psutil.NoSuchProcess:
            return False
        return not gone

    def is_same_process(self, other: DriverProcess) -> bool:
        """Whether both are the same process; their runs may differ."""
        return (self.place, self.pid) == (other.place, other.pid) and abs(self.started - other.started) <= 1


@dataclass(frozen=True, kw_only=True)
class Lease:
    """The lease as the study holds it."""

    owner: DriverProcess
    keeper: str
    """Random, new with every start of the keeper."""
    beat: int
    """Increases with every transaction."""
    released: bool = False
    seen: float = 0.0
    """The holder's clock at its last transaction, for people to read."""
    file: str = ""
    """Device and inode of the study's file, which a copy of it does not have; empty for a database server."""
    stored: str = field(default="", compare=False, repr=False)
    """The lease's text in the study, where this says something else."""

    @classmethod
    def from_text(cls, text: str) -> Lease:
        values = json.loads(text)
        lease = cls(**{**values, "owner": DriverProcess(**values["owner"])})
        # A lease of an earlier version has fewer fields; what is exchanged is the text that the study holds.
        return lease if lease.to_text() == text else replace(lease, stored=text)

    def to_text(self) -> str:
        values = asdict(self)
        return values.pop("stored") or json.dumps(values, sort_keys=True)

    def holder(self) -> str:
        """Who holds it, for messages."""
        seen = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(self.seen))
        return f"process {self.owner.pid} on {self.owner.host}, last sign of life {seen}"


def lease_of(study: optuna.Study) -> Lease | None:
    """The study's lease, released or not; None if no keeper ever held it.

    In a copied file it counts as released.
    """
    text = study.user_attrs.get(LEASE)
    if text is None:
        return None
    lease = Lease.from_text(text)
    # On another machine the same file may have another device's number.
    if lease.file and lease.owner.is_alive is not None and lease.file != _file_of(url_of(study)):
        return replace(lease, released=True, stored=text)
    return lease


def _file_of(url: str) -> str:
    path = journal_path(url) or sqlite_file(url)
    try:
        found = None if path is None else path.stat()
    except OSError:
        return ""
    return "" if found is None else f"{found.st_dev}:{found.st_ino}"


def refuse_if_held(study: optuna.Study, me: DriverProcess) -> Lease | None:
    """Raise StudyHeld if another live process of this machine holds the study.

    Returns the lease of a holder elsewhere, which may be alive. A driver calls this before it starts a
    keeper, which decides.
    """
    lease = lease_of(study)
    return None if _is_free(lease, me, study.study_name) else lease


def wait_until_free(study: optuna.Study, me: DriverProcess, *, seconds: float) -> Lease | None:
    """The study's lease, once it may be taken over; None if there never was one.

    A lease is free when it was released, when its driver is dead or this very process, and when it has not
    changed for `seconds`. Raises StudyHeld when another keeper is alive.
    """
    first, name = lease_of(study), study.study_name
    if first is None or _is_free(first, me, name):
        return first
    started = time.monotonic()
    while time.monotonic() - started < seconds:
        time.sleep(min(_POLL_SECONDS, seconds))
        now = lease_of(study)
        if now is not None and now.released:
            return now
        if now != first:
            raise StudyHeld(_refusal(name, now or first))
    return first


def refuse_unless_free(study: optuna.Study, *, seconds: float) -> None:
    """Raise StudyHeld if a live sweep holds the study, on this machine or elsewhere.

    For code that writes to a study without taking its lease. Watches a holder elsewhere for up to `seconds`.
    """
    wait_until_free(study, DriverProcess.current(secrets.token_hex(8)), seconds=seconds)


def _is_free(lease: Lease | None, me: DriverProcess, name: str) -> bool:
    """False for a holder elsewhere, which may be alive. Raises StudyHeld for a live one on this machine."""
    if lease is None or lease.released or lease.owner.is_same_process(me):
        return True
    is_alive = lease.owner.is_alive
    if is_alive:
        raise StudyHeld(_refusal(name, lease))
    return is_alive is False


def _refusal(name: str, lease: Lease) -> str:
    return (
        f"the study {name!r} is in use by another sweep ({lease.holder()}); "
        "stop that sweep, or wait until it ends"
    )


class HeldLease:
    """The lease as its holder renews it, at the start of every transaction."""

    def __init__(self, study_id: int, name: str, owner: DriverProcess, found: Lease | None) -> None:
        """`found` is the lease that the first `renew` replaces."""
        self._study_id = study_id
        self._name = name
        self._mine = Lease(owner=owner, keeper=secrets.token_hex(8), beat=0 if found is None else found.beat)
        self._held = found
        """The lease that the study holds, as far as is known."""
        self._renewed_at = -math.inf

    @property
    def is_due(self) -> bool:
        """Whether it is time to renew it without another write."""
        return time.monotonic() - self._renewed_at >= BEAT_SECONDS

    def renew(self, storage: StudyStorage) -> Lease:
        """Exchange the lease for its next value. Raises LeaseLost if another keeper has taken the study.

        Call `committed` with the result once the transaction is committed.
        """
        if not self._mine.file:
            self._mine = replace(self._mine, file=_file_of(storage.url))
        following = self._following()
        if not self._exchange(storage, following):
            # A commit may have succeeded although its answer was lost: then the study holds our own lease.
            text = storage.get_study_user_attrs(self._study_id).get(LEASE)
            current = None if text is None else Lease.from_text(text)
            if current is None or current.keeper != self._mine.keeper:
                raise LeaseLost(
                    f"the study {self._name!r} was taken over by another sweep; this one writes nothing more"
                )
            self.committed(current)
            following = self._following()
            if not self._exchange(storage, following):
                raise LeaseLost(f"the lease of the study {self._name!r} cannot be renewed")
        return following

    def committed(self, lease: Lease) -> None:
        """Take note that the transaction which wrote `lease` is committed."""
        self._mine = self._held = lease
        self._renewed_at = time.monotonic()

    def release(self, storage: StudyStorage) -> bool:
        """Release the lease, inside a transaction; False, and nothing done, if another keeper has it."""
        return self._exchange(storage, replace(self._following(), released=True))

    def _following(self) -> Lease:
        return replace(self._mine, beat=self._mine.beat + 1, seen=time.time(), stored="")

    def _exchange(self, storage: StudyStorage, following: Lease) -> bool:
        held = None if self._held is None else self._held.to_text()
        return storage.exchange_study_attr(self._study_id, LEASE, held, following.to_text())


def _pid_namespace() -> str:
    parts = [socket.gethostname()]
    with contextlib.suppress(OSError):  # not Linux: the host's name alone
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip())
        parts.append(os.readlink("/proc/self/ns/pid"))
    return " ".join(parts)
