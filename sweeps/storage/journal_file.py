"""Optuna's journal file, written in whole batches of records.

The format is Optuna's own, a JSON object per line, so Optuna and its dashboard read the file as it is. The
records of one transaction are a batch: each carries `"batch": [i, n]`, the i-th of n, a key that Optuna does
not look at (a batch of one goes without). They are appended in one write and flushed to the disk under a
lock, and the next batch is appended only after that. Therefore:

* A process killed while it writes, or a disk that is full, leaves at most one unfinished batch, and only as
  the last thing in the file: an end without i = n, a line without its end, or lines that are no JSON where
  the file's length reached the disk and its content did not.
* A batch counts as read only when its last record is there. So readers need no lock, and what was not
  finished has never happened.
* The next writer cuts the unfinished end off, before it writes anything, and keeps what it cut off in
  `PATH.torn-N`. An end that cannot have come about in this way is not touched but refused: damage before
  a batch that is whole, or a file that was never a journal.

Writers exclude each other by `flock`, which ends with its process; where a file system has none, by the
length of the file at the time of the append. The append itself also happens under the lock of Optuna's own
writers (a symbolic link beside the file), for the sake of notes that somebody writes in the dashboard.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import time
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from optuna.storages.journal import BaseJournalBackend

from sweeps.storage.file_systems import network_file_system
from sweeps.storage.optuna_private import MarkedSymlinkLock
from sweeps.storage.outages import StorageOutage

LOCK_SECONDS = 60
"""Other writers are waited for this long; a transaction takes a small part of a second."""
_FIRST_BYTES = b'{"op_code":'
_NO_FLOCK = (errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EINVAL)


class JournalDamaged(Exception):
    """The file holds something that no interrupted write leaves behind."""


class JournalReader(BaseJournalBackend):
    """Gives the records of whole batches, and writes nothing."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._offset = 0
        """Bytes of the whole batches that were read."""
        self._line = 0
        self._first = 0
        """Number of the first record in `_records`."""
        self._records: list[dict[str, Any]] = []
        """The latest ones, kept for whoever asks from there once more."""

    def read_logs(self, log_number_from: int) -> list[dict[str, Any]]:
        """Records from a number on; JournalDamaged where the file is none, or no longer what was read."""
        if log_number_from < self._first:
            self.rewind()
        self._read_new()
        self._records = self._records[log_number_from - self._first :]
        self._first = log_number_from
        return list(self._records)

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        raise TypeError(f"{self.path} was opened for reading.")

    def rewind(self) -> None:
        """Forget what was read."""
        self._offset = self._line = self._first = 0
        self._records = []

    def _read_new(self) -> None:
        with open(self.path, "rb") as file:
            self._read_from(file.fileno())

    def _read_from(self, file: int) -> None:
        size = os.fstat(file).st_size
        if size < self._offset:
            raise JournalDamaged(f"{self.path} is shorter than it was; somebody else changed it")
        data = bytearray()
        while len(data) < size - self._offset:
            if not (chunk := os.pread(file, size - self._offset - len(data), self._offset + len(data))):
                break
            data += chunk
        if data:
            self._take_whole_batches(bytes(data).split(b"\n"))

    def _take_whole_batches(self, lines: list[bytes]) -> None:
        *lines, unfinished = lines
        batch: list[dict[str, Any]] = []
        num_bytes, bad = 0, None
        for number, line in enumerate(lines, start=self._line + 1):
            record = _record(line)
            i, n = (0, 0) if record is None else _place_in_batch(record)
            if bad is None and record is not None and (i, n) == (len(batch) + 1, n) and _goes_on(batch, n):
                batch.append(record)
                num_bytes += len(line) + 1
                if i == n:
                    self._records += batch
                    self._offset += num_bytes
                    self._line, batch, num_bytes = number, [], 0
            elif i == 1:
                at = self._line + 1 if bad is None else bad
                raise JournalDamaged(f"{self.path} is damaged at line {at}, and was written to after that")
            else:
                bad = bad or number
        if (
            self._offset == 0
            and (lines or unfinished)
            and not _may_begin_a_journal((lines or [unfinished])[0], is_whole=bool(lines))
        ):
            raise JournalDamaged(f"{self.path} is not a journal")


class JournalWriter(JournalReader):
    """Appends batches. A file that is not there is made, one with an unfinished end repaired."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._batch: list[str] | None = None
        self._append_lock = _AppendLock(path)
        self._is_local = network_file_system(path) is None
        is_new = not path.exists()
        self._file = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o666)
        self._close = weakref.finalize(self, os.close, self._file)
        if is_new:
            _flush_folder(path.parent)
        try:
            with self.locked():
                pass
        except BaseException:
            self.close()
            raise

    @property
    def in_batch(self) -> bool:
        return self._batch is not None

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other writers out, and see that the file ends with a whole batch. Raises StorageOutage."""
        has_flock = self._take_flock()
        try:
            self._append_lock.is_ours_alone = has_flock and self._is_local
            self._check_there()
            if os.fstat(self._file).st_size != self._offset:
                self._read_new()
                self._repair()
            yield
        finally:
            if has_flock:
                fcntl.flock(self._file, fcntl.LOCK_UN)

    @contextmanager
    def batch(self) -> Iterator[None]:
        """Collect the records that are appended inside, and write them together at the end.

        To be entered inside `locked`. After an error nothing is written, and reading starts over.
        """
        if self._batch is not None:
            raise RuntimeError("A batch of records is open already.")
        self._batch = []
        try:
            yield
            self._write(self._batch)
        except BaseException:
            self.rewind()
            raise
        finally:
            self._batch = None

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Into the open batch; without one, as a batch of its own."""
        if self._batch is None:
            with self.locked(), self.batch():
                self.append_logs(logs)
            return
        for log in logs:
            text = json.dumps(log, separators=(",", ":"))
            self._batch.append(text)
            self._records.append(json.loads(text))  # as a reader will see it

    def close(self) -> None:
        """Let go of the file."""
        self._close()

    def _read_new(self) -> None:
        # Inside a batch nobody else writes, and the batch's own records are there already.
        if self._batch is None:
            self._read_from(self._file)

    def _write(self, records: list[str]) -> None:
        if not records:
            return
        if len(records) > 1:
            records = [
                f'{record[:-1]},"batch":[{i},{len(records)}]}}' for i, record in enumerate(records, start=1)
            ]
        data = "".join(f"{record}\n" for record in records).encode("utf-8")
        with self._append_lock.held():
            if os.fstat(self._file).st_size != self._offset:
                raise StorageOutage(f"{self.path} was written to by another program meanwhile")
            try:
                left = memoryview(data)
                while left:
                    left = left[os.write(self._file, left) :]
                os.fsync(self._file)
            except BaseException:
                # Works on a full disk too; where it does not, the next writer finds an unfinished batch.
                with suppress(OSError):
                    os.ftruncate(self._file, self._offset)
                    os.fsync(self._file)
                raise
        self._offset += len(data)
        self._line += len(records)

    def _repair(self) -> None:
        if os.fstat(self._file).st_size == self._offset:
            return
        with self._append_lock.held():
            self._read_new()  # a writer of Optuna's own may just have been at it
            size = os.fstat(self._file).st_size
            if size == self._offset:
                return
            _keep(self.path, os.pread(self._file, size - self._offset, self._offset))
            os.ftruncate(self._file, self._offset)
            os.fsync(self._file)

    def _take_flock(self) -> bool:
        until = time.monotonic() + LOCK_SECONDS
        while True:
            try:
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return True
            except OSError as error:
                if error.errno in _NO_FLOCK:
                    return False
                if error.errno not in (errno.EWOULDBLOCK, errno.EACCES, errno.EINTR):
                    raise
            if time.monotonic() > until:
                raise StorageOutage(f"{self.path} is locked by another process")
            time.sleep(0.005)

    def _check_there(self) -> None:
        """What is written to a file that was removed or replaced would be lost."""
        try:
            there, mine = os.stat(self.path), os.fstat(self._file)
        except FileNotFoundError:
            raise StorageOutage(f"{self.path} is gone") from None
        if (there.st_dev, there.st_ino) != (mine.st_dev, mine.st_ino):
            raise StorageOutage(f"{self.path} is another file than the one that was opened")


class _AppendLock(MarkedSymlinkLock):
    """The lock of Optuna's own writers, marked as ours by how the link's target is written."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, target=f".//./{path.name}")
        self.is_ours_alone = False
        """Whether a link with our mark can only be left over from a process that was killed."""

    def release(self) -> None:
        """Without the second name that Optuna's own leaves behind when it is killed in between."""
        if not self.is_ours_alone:
            super().release()
        elif os.readlink(self.link) == self.target:
            os.unlink(self.link)

    @contextmanager
    def held(self) -> Iterator[None]:
        if self.is_ours_alone:
            with suppress(OSError):  # none there, or not a link
                self.release()
        self.acquire()
        try:
            yield
        finally:
            with suppress(RuntimeError, FileNotFoundError):  # taken from us because we were slow
                self.release()


def _record(line: bytes) -> dict[str, Any] | None:
    try:
        record = json.loads(line)
    except ValueError:
        return None
    return record if isinstance(record, dict) and "op_code" in record else None


def _place_in_batch(record: dict[str, Any]) -> tuple[int, int]:
    """(i, n); a record of Optuna's own is whole by itself."""
    place = record.get("batch", [1, 1])
    well_formed = isinstance(place, list) and len(place) == 2 and all(type(part) is int for part in place)
    return (place[0], place[1]) if well_formed and 1 <= place[0] <= place[1] else (0, 0)


def _goes_on(batch: list[dict[str, Any]], num_records: int) -> bool:
    return not batch or _place_in_batch(batch[-1])[1] == num_records


def _may_begin_a_journal(line: bytes, *, is_whole: bool) -> bool:
    """Whether the first line is a record, the beginning of one, or content that did not reach the disk."""
    return line.startswith((_FIRST_BYTES, b"\0")) or (not is_whole and _FIRST_BYTES.startswith(line))


def _keep(path: Path, data: bytes) -> None:
    """Save what is cut off the journal at `path`."""
    number = 1
    while True:
        try:
            file = os.open(
                f"{path}.torn-{number}", os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666
            )
            break
        except FileExistsError:
            number += 1
    with open(file, "wb") as torn:
        torn.write(data)
        torn.flush()
        os.fsync(torn.fileno())
    _flush_folder(path.parent)


def _flush_folder(folder: Path) -> None:
    """Make a new name in a folder outlast a power failure."""
    file = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(file)
    finally:
        os.close(file)
