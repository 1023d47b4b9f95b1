"""Optuna's journal file, written in whole batches of records.

The format is Optuna's own, one JSON object per line, so Optuna and its dashboard can read the file. The
records of one transaction form a batch: each holds `"batch": [i, n]`, "record i of n", a key that Optuna
ignores (a batch of one record goes without). A batch is appended in one write and flushed to the disk under a
lock, and only then the next one follows. Therefore:

* A process killed while it writes, or a full disk, leaves at most one unfinished batch, and only at the end
  of the file: its last record is missing, a line is cut off, or lines are not JSON because the file's length
  reached the disk and its content did not.
* A reader counts a batch only when its last record is there. So readers need no lock, and an unfinished
  transaction has no effect.
* The next writer first cuts the unfinished end off and keeps it in `PATH.torn-N`. An end that no interrupted
  write can explain is refused and left as it is: damage before a whole batch, or a file that is no journal.

Our writers exclude each other by `flock`, which ends with its process; on a file system without it, the
file's length at the time of the append tells whether another one wrote. The append itself also takes the lock
of Optuna's own writers, because notes written in the dashboard are appended by Optuna.
"""

from __future__ import annotations

import fcntl
import itertools
import json
import os
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from optuna.storages.journal import BaseJournalBackend

from files_and_text.atomic_files import sync_folder
from sweeps.storage.file_systems import network_file_system
from sweeps.storage.journal_lock import AppendLock, take_flock
from sweeps.storage.outages import StorageOutage

_FIRST_BYTES = b'{"op_code":'


class JournalDamaged(Exception):
    """The file holds something that no interrupted write leaves behind."""


class JournalReader(BaseJournalBackend):
    """Reads the records of whole batches; writes nothing."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._offset = 0
        """Bytes read, up to the end of the last whole batch."""
        self._line = 0
        self._first = 0
        """Index in the file of the first record in `_records`."""
        self._records: list[dict[str, Any]] = []
        """The latest ones, kept in case they are asked for again."""

    def read_logs(self, log_number_from: int) -> list[dict[str, Any]]:
        """Records from an index on. Raises JournalDamaged, also for a file that is shorter than before."""
        if log_number_from < self._first:
            self.rewind()
        self._read_new()
        self._records = self._records[log_number_from - self._first :]
        self._first = log_number_from
        return list(self._records)

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        raise TypeError(f"{self.path} was opened for reading.")

    def rewind(self) -> None:
        """Read from the start of the file next time."""
        self._offset = self._line = self._first = 0
        self._records = []

    def _read_new(self) -> None:
        with open(self.path, "rb") as file:
            self._read_from(file.fileno())

    def _read_from(self, file: int) -> None:
        size = os.fstat(file).st_size
        if size < self._offset:
            raise JournalDamaged(f"{self.path} is shorter than before: another program changed it")
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
            i, n = (0, 0) if record is None else _index_in_batch(record)
            goes_on = not batch or _index_in_batch(batch[-1])[1] == n
            if bad is None and record is not None and i == len(batch) + 1 and goes_on:
                batch.append(record)
                num_bytes += len(line) + 1
                if i == n:
                    self._records += batch
                    self._offset += num_bytes
                    self._line, batch, num_bytes = number, [], 0
            elif i == 1:
                at = self._line + 1 if bad is None else bad
                raise JournalDamaged(f"{self.path} is damaged at line {at}, before the end of the file")
            else:
                bad = bad or number
        if (
            self._offset == 0
            and (lines or unfinished)
            and not _may_begin_a_journal((lines or [unfinished])[0], is_whole=bool(lines))
        ):
            raise JournalDamaged(f"{self.path} is not a journal")


class JournalWriter(JournalReader):
    """Appends batches; creates a missing file and cuts off an unfinished end."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._batch: list[str] | None = None
        self._append_lock = AppendLock(path)
        self._is_local = network_file_system(path) is None
        is_new = not path.exists()
        self._file = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o666)
        self._close = weakref.finalize(self, os.close, self._file)
        if is_new:
            sync_folder(path.parent)
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
        """Keep other writers out of a file that ends with a whole batch. Raises StorageOutage."""
        has_flock = take_flock(self._file, self.path)
        try:
            self._append_lock.is_ours_alone = has_flock and self._is_local
            self._check_not_replaced()
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

        For use inside `locked`. After an error nothing is written, and reading starts over.
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
        """Add to the open batch; without one, write a batch of their own."""
        if self._batch is None:
            with self.locked(), self.batch():
                self.append_logs(logs)
            return
        for log in logs:
            text = json.dumps(log, separators=(",", ":"))
            self._batch.append(text)
            self._records.append(json.loads(text))  # as a reader will see it

    def close(self) -> None:
        self._close()

    def _read_new(self) -> None:
        # Inside a batch no other process writes, and `_records` holds the batch's own already.
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
                raise StorageOutage(f"{self.path} was written to by another program during the transaction")
            try:
                left = memoryview(data)
                while left:
                    left = left[os.write(self._file, left) :]
                os.fsync(self._file)
            except BaseException:
                # Works on a full disk too; if it fails, the next writer finds an unfinished batch.
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
            self._read_new()  # one of Optuna's writers may have just finished
            size = os.fstat(self._file).st_size
            if size == self._offset:
                return
            _keep_torn(self.path, os.pread(self._file, size - self._offset, self._offset))
            os.ftruncate(self._file, self._offset)
            os.fsync(self._file)

    def _check_not_replaced(self) -> None:
        """Writes to a file that was removed or replaced would be lost."""
        try:
            on_disk, opened = os.stat(self.path), os.fstat(self._file)
        except FileNotFoundError:
            raise StorageOutage(f"{self.path} is gone") from None
        if (on_disk.st_dev, on_disk.st_ino) != (opened.st_dev, opened.st_ino):
            raise StorageOutage(f"{self.path} was replaced by another file")


def _record(line: bytes) -> dict[str, Any] | None:
    try:
        record = json.loads(line)
    except ValueError:
        return None
    return record if isinstance(record, dict) and "op_code" in record else None


def _index_in_batch(record: dict[str, Any]) -> tuple[int, int]:
    """(i, n); a record written by Optuna is a whole batch, (0, 0) is malformed."""
    index = record.get("batch", [1, 1])
    well_formed = isinstance(index, list) and len(index) == 2 and all(type(part) is int for part in index)
    return (index[0], index[1]) if well_formed and 1 <= index[0] <= index[1] else (0, 0)


def _may_begin_a_journal(line: bytes, *, is_whole: bool) -> bool:
    """Whether the first line is a record, the beginning of one, or zeros that a power failure left."""
    return line.startswith((_FIRST_BYTES, b"\0")) or (not is_whole and _FIRST_BYTES.startswith(line))


def _keep_torn(path: Path, data: bytes) -> None:
    """Save the end that is cut off the journal at `path`."""
    for number in itertools.count(1):
        with suppress(FileExistsError), open(f"{path}.torn-{number}", "xb") as torn:
            torn.write(data)
            torn.flush()
            os.fsync(torn.fileno())
            break
    sync_folder(path.parent)
