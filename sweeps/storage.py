"""The database behind the study: reached, opened, and written to in whole transactions."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import optuna
import sqlalchemy
import sqlalchemy.exc
from optuna.storages._rdb import models
from sqlalchemy import orm

from sweeps.errors import StorageUnreachable

CONNECT_SECONDS = 10
_TAKE_CONNECT_TIMEOUT = {
    f"{database}{driver}"
    for database, drivers in (
        ("postgresql", ("", "+psycopg", "+psycopg2")),
        ("mysql", ("", "+pymysql", "+mysqldb")),
        ("mariadb", ("", "+pymysql", "+mysqldb")),
    )
    for driver in drivers
}


def open_storage(url: str, *, for_reading: bool = False) -> optuna.storages.RDBStorage:
    """Open a database; StorageUnreachable never shows the password. A reader keeps no connection open."""
    options = _engine_options(url) | ({"poolclass": sqlalchemy.NullPool} if for_reading else {})
    try:
        return optuna.storages.RDBStorage(url, engine_kwargs=options)
    except (sqlalchemy.exc.SQLAlchemyError, ImportError, ValueError, RuntimeError) as error:
        raise StorageUnreachable(f"storage {masked(url)} cannot be opened: {_reason(error, url)}") from None


def check_reachable(url: str, run_folder: Path | None = None) -> None:
    """Connect once, writing nothing. A SQLite file in `run_folder` need not exist yet, nor that folder."""
    try:
        if (file := sqlite_file(url)) is not None:
            _check_file(file, url, run_folder)
            if not file.exists():
                return
        has_tables(url)
    except (sqlalchemy.exc.SQLAlchemyError, ImportError, ValueError) as error:
        raise StorageUnreachable(f"storage {masked(url)} cannot be reached: {_reason(error, url)}") from None


def has_tables(url: str) -> bool:
    """Whether Optuna has ever been in this database. Raises SQLAlchemy's errors."""
    engine = sqlalchemy.create_engine(url, **_engine_options(url))
    try:
        return sqlalchemy.inspect(engine).has_table("studies")
    finally:
        engine.dispose()


def sqlite_file(url: str) -> Path | None:
    """The file of a SQLite URL; None for every other URL."""
    if not url.startswith("sqlite"):
        return None
    parts = _parts(url)
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


def _engine_options(url: str) -> dict[str, Any]:
    if url.startswith("sqlite"):
        # Readers such as `sweeps status` hold the lock for moments only.
        return {"connect_args": {"timeout": 60}}
    options: dict[str, Any] = {"pool_pre_ping": True, "pool_recycle": 1800}
    parts = _parts(url)
    if parts is None:
        return options
    if parts.drivername in _TAKE_CONNECT_TIMEOUT and "connect_timeout" not in parts.query:
        # A host that swallows packets would otherwise hold the command for minutes.
        options["connect_args"] = {"connect_timeout": CONNECT_SECONDS}
    return options


def masked(url: str) -> str:
    """The URL with its password hidden, for messages; text that is no URL is hidden whole."""
    parts = _parts(url)
    if parts is None:
        scheme, separator, _ = url.partition("://")
        return f"{scheme}://..." if separator else "(no database URL)"
    # A query may hold a password too.
    return parts.set(query={}).render_as_string(hide_password=True)


def _parts(url: str) -> sqlalchemy.engine.URL | None:
    try:
        return sqlalchemy.engine.make_url(url)
    except (sqlalchemy.exc.ArgumentError, ValueError):
        return None


def _reason(error: Exception, url: str) -> str:
    parts = _parts(url)
    if parts is None:
        # The library's own message repeats what it was given, which may be a secret.
        return "a database URL reads like postgresql+psycopg://user@host:5432/database"
    text = str(getattr(error, "orig", None) or error).strip().splitlines()[0]
    if isinstance(error, ImportError):
        text += "; install the driver with pip install 'qlora-sweeps[postgresql]' or 'qlora-sweeps[mysql]'"
    as_written = url.partition("://")[2].rpartition("@")[0].partition(":")[2]
    values = [value for key, value in parts.normalized_query.items() if "pass" in key or key == "pwd"]
    for secret in (parts.password, as_written, *(item for items in values for item in items)):
        text = text.replace(str(secret), "***") if secret else text
    return text


@contextmanager
def transaction(storage: optuna.storages.RDBStorage) -> Iterator[None]:
    """Commit everything that Optuna writes inside at once, or nothing of it when an error comes out.

    Optuna commits every attribute and value by itself: slow, and a crash can leave a trial half written.
    For one thread: meanwhile the storage is bound to one connection.
    """
    own = storage.scoped_session
    with storage.engine.connect() as connection, connection.begin():
        storage.scoped_session = orm.scoped_session(
            orm.sessionmaker(bind=connection, join_transaction_mode="rollback_only")
        )
        try:
            yield
        finally:
            storage.scoped_session.remove()
            storage.scoped_session = own


def exchange_study_attr(
    storage: optuna.storages.RDBStorage, study_id: int, key: str, old: str | None, new: str
) -> bool:
    """Put `new` in the place of `old` in a study's text attribute; False when something else stands there.

    `old` None: nothing may stand there yet. One statement, so of two that try, one succeeds; inside a
    `transaction` it also holds the database's write lock from there on.
    """
    table = models.StudyUserAttributeModel
    session = storage.scoped_session()
    if old is None:
        absent = session.query(table).filter_by(study_id=study_id, key=key).first() is None
        if absent:
            session.add(table(study_id=study_id, key=key, value_json=json.dumps(new)))
            session.flush()  # another's row for this key is an IntegrityError
        return absent
    replaced = (
        sqlalchemy.update(table)
        .where(table.study_id == study_id, table.key == key, table.value_json == json.dumps(old))
        .values(value_json=json.dumps(new))
        .execution_options(synchronize_session=False)
    )
    result = session.execute(replaced)
    return bool(getattr(result, "rowcount", 0) == 1)


def is_outage(error: BaseException) -> bool:
    """Whether a storage is away for now."""
    return isinstance(error, OSError | sqlalchemy.exc.OperationalError) or (
        error.__cause__ is not None and is_outage(error.__cause__)
    )


def outage_reason(error: BaseException) -> str:
    """The first line of it."""
    return next(iter(str(error).splitlines()), type(error).__name__)
