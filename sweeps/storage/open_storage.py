"""Check and open the storage that a URL names: a database, or `journal:PATH`."""

from __future__ import annotations

import os
import warnings
from pathlib import Path

import sqlalchemy
import sqlalchemy.exc

from sweeps.config.storage_url import HOW_TO_WRITE, check_login
from sweeps.config.url_passwords import is_plain, masked, without_secrets
from sweeps.errors import StorageUnreachable
from sweeps.storage.file_systems import network_file_system
from sweeps.storage.journal_file import JournalDamaged, JournalReader
from sweeps.storage.journal_storage import JOURNAL_PREFIX, JournalStudyStorage, journal_path
from sweeps.storage.outages import StorageOutage, outage_reason
from sweeps.storage.sql_storage import SqlStudyStorage, engine_options, parse_url
from sweeps.storage.study_storage import StudyStorage

STORAGE_ERRORS = (
    *(sqlalchemy.exc.SQLAlchemyError, ImportError, ValueError, RuntimeError),
    *(OSError, StorageOutage, JournalDamaged),
)
"""Errors that opening and reading a storage can raise."""


def open_storage(url: str, *, for_reading: bool = False) -> StudyStorage:
    """Open a database or journal. Raises StorageUnreachable, whose message never holds the password.

    With `for_reading`, nothing is written and no connection stays open.
    """
    check_login(url)
    if not for_reading:
        _refuse_shared_sqlite(url)
    try:
        if (file := journal_path(url)) is not None:
            return JournalStudyStorage(file, for_reading=for_reading)
        return SqlStudyStorage(url, for_reading=for_reading)
    except STORAGE_ERRORS as error:
        raise StorageUnreachable(f"storage {masked(url)} cannot be opened: {_reason(error, url)}") from None


def check_reachable(url: str, run_folder: Path | None = None) -> None:
    """Raise StorageUnreachable if the storage cannot be used; writes nothing.

    A file in `run_folder` need not exist yet, nor that folder. For a journal on a network file system there
    is a warning.
    """
    check_login(url)
    _refuse_shared_sqlite(url)
    _warn_of_shared_journal(url)
    journal = journal_path(url)
    file = journal or sqlite_file(url)
    if file is not None:
        _check_file(file, url, run_folder)
        if not file.exists():
            return
    try:
        if journal is not None:
            JournalReader(journal).read_logs(0)
        else:
            holds_studies(url)
    except STORAGE_ERRORS as error:
        raise StorageUnreachable(f"storage {masked(url)} cannot be reached: {_reason(error, url)}") from None


def holds_studies(url: str) -> bool:
    """Whether the storage has Optuna's records or all of its tables; writes nothing. Raises `STORAGE_ERRORS`.

    Optuna stamps `alembic_version` last. A reader that opened the storage before would stamp it too, and the
    process that creates the tables would fail.
    """
    check_login(url)
    if (file := journal_path(url)) is not None:
        return file.exists() and file.stat().st_size > 0
    if (file := sqlite_file(url)) is not None and not file.exists():
        return False
    engine = sqlalchemy.create_engine(url, **engine_options(url, for_reading=True))
    try:
        if not sqlalchemy.inspect(engine).has_table("alembic_version"):
            return False
        with engine.connect() as connection:
            return connection.scalar(sqlalchemy.text("SELECT version_num FROM alembic_version")) is not None
    finally:
        engine.dispose()


def sqlite_file(url: str) -> Path | None:
    """The file of a SQLite URL; None for every other URL."""
    if not url.startswith("sqlite"):
        return None
    parts = parse_url(url)
    return Path(parts.database.removeprefix("file:")) if parts is not None and parts.database else None


def _check_file(file: Path, url: str, run_folder: Path | None) -> None:
    folder = file.parent
    if not folder.is_dir() and folder == run_folder:
        folder = next(above for above in folder.parents if above.exists())
    if not folder.is_dir():
        raise StorageUnreachable(
            f"storage {masked(url)} cannot be opened: there is no folder {str(folder)!r}"
        )
    for path in (folder, file):
        if path.exists() and not os.access(path, os.W_OK):
            raise StorageUnreachable(
                f"storage {masked(url)} cannot be opened: {str(path)!r} cannot be written"
            )


def _refuse_shared_sqlite(url: str) -> None:
    file = sqlite_file(url)
    if file is not None and (kind := network_file_system(file)) is not None:
        raise StorageUnreachable(
            f"storage {masked(url)} cannot be used: SQLite's locks do not work on a network file system "
            f"({kind}), and the study would be damaged; use a PostgreSQL database or a file on a local disk"
        )


def _warn_of_shared_journal(url: str) -> None:
    file = journal_path(url)
    if file is not None and (kind := network_file_system(file)) is not None:
        warnings.warn(
            f"storage {masked(url)} is on a network file system ({kind}), where locks and flushes may "
            "not work; a PostgreSQL database or a file on a local disk is safer",
            stacklevel=3,
        )


def _reason(error: Exception, url: str) -> str:
    if url.startswith(JOURNAL_PREFIX):
        return outage_reason(error)
    if parse_url(url) is None or not is_plain(url):
        # The library's own message repeats the text, which may be a password.
        return HOW_TO_WRITE
    text = str(getattr(error, "orig", None) or error).strip().splitlines()[0]
    if isinstance(error, ImportError):
        text += "; install the driver with pip install 'qlora-sweeps[postgresql]' or 'qlora-sweeps[mysql]'"
    return without_secrets(text, url)
