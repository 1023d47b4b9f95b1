"""The two locks of a journal file: one among our writers, one shared with Optuna's own."""

from __future__ import annotations

import errno
import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from sweeps.storage.optuna_private import MarkedSymlinkLock
from sweeps.storage.outages import StorageOutage

LOCK_SECONDS = 60
"""How long to wait for another writer; a transaction takes a small part of a second."""
_NO_FLOCK = (errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EINVAL)
_HELD = (errno.EWOULDBLOCK, errno.EACCES, errno.EINTR)


def take_flock(file: int, path: Path) -> bool:
    """Lock an open file; False on a file system without locks. Raises StorageOutage after `LOCK_SECONDS`."""
    deadline = time.monotonic() + LOCK_SECONDS
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except OSError as error:
            if error.errno in _NO_FLOCK:
                return False
            if error.errno not in _HELD:
                raise
        if time.monotonic() > deadline:
            raise StorageOutage(f"{path} is locked by another process")
        time.sleep(0.005)


class AppendLock(MarkedSymlinkLock):
    """The lock of Optuna's own writers, a symbolic link; the spelling of its target marks it as ours."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, target=f".//./{path.name}")
        self.is_ours_alone = False
        """Whether a link with our mark can only be one that a killed process left behind."""

    def release(self) -> None:
        """Unlink at once: Optuna renames the link first, and leaves the new name when it is killed there."""
        if not self.is_ours_alone:
            super().release()
        elif os.readlink(self.link) == self.target:
            os.unlink(self.link)

    @contextmanager
    def held(self) -> Iterator[None]:
        if self.is_ours_alone:
            with suppress(OSError):  # there is no link, or it is none
                self.release()
        self.acquire()
        try:
            yield
        finally:
            with suppress(RuntimeError, FileNotFoundError):  # another process took it after its grace period
                self.release()
