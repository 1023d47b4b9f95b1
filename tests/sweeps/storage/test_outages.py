"""Which errors are outages, shown on real ones: full disks, locks, a stopped PostgreSQL."""

from __future__ import annotations

import contextlib
import errno
import os
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest
import sqlalchemy

import sweeps.storage.sql_storage
from sweeps.errors import StorageUnreachable, StudyMismatch
from sweeps.storage.cached_storage import CachedStorage
from sweeps.storage.open_storage import open_storage
from sweeps.storage.outages import is_outage, outage_reason
from sweeps.storage.study_storage import StudyStorage
from sweeps.study.study import find_study, open_study, set_user_attrs
from tests.small_disk import fill


def add_trial(storage: StudyStorage, value: float = 1.0, text: str = "") -> None:
    """As the keeper does: read the storage and write in one transaction."""
    with storage.transaction():
        study, _ = open_study(CachedStorage(storage), "s", {})
        trial = study.ask()
        set_user_attrs(study, trial, text=text)
        study.tell(trial, value)


def error_of(call: Callable[[], object]) -> BaseException:
    with pytest.raises(Exception) as caught:  # noqa: PT011
        call()
    return caught.value


@pytest.mark.parametrize("url", ["sqlite:///{}/study.db", "journal:{}/study.log"])
def test_a_full_disk_is_an_outage_and_over_when_there_is_space_again(
    small_disk: Path, url: str, plainly: Callable[..., Any]
) -> None:
    url = url.format(small_disk)
    storage = open_storage(url)
    add_trial(storage, 1.0)
    filling = fill(small_disk)
    for _ in range(3):
        error = error_of(lambda: [add_trial(storage, 2.0, "long" * 1000) for _ in range(20)])
        assert is_outage(error), error
        assert "full" in outage_reason(error) or "No space left" in outage_reason(error)
    before = [t.value for t in plainly(url, "s")]
    assert before in ([1.0], [1.0, 2.0], [1.0, 2.0, 2.0])  # the last page may have had space
    filling.unlink()
    add_trial(storage, 3.0)
    assert [t.value for t in plainly(url, "s")] == [*before, 3.0]
    assert not list(small_disk.glob("*.torn-*"))
    storage.close()


def test_sqlite_locked_by_another_is_an_outage(
    new_database: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweeps.storage.sql_storage, "LOCK_SECONDS", 0.1)
    storage = open_storage(url := new_database("study"))
    add_trial(storage)
    file = url.removeprefix("sqlite:///")
    with contextlib.closing(sqlite3.connect(file, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        error = error_of(lambda: add_trial(storage))
        assert is_outage(error)
        assert outage_reason(error) == "database is locked"
        other.execute("ROLLBACK")
    add_trial(storage)
    storage.close()


def test_a_postgresql_that_is_stopped_is_an_outage_until_it_is_back(
    postgresql: Any, plainly: Callable[..., Any]
) -> None:
    storage = open_storage(url := postgresql.new_database())
    add_trial(storage, 1.0)
    for mode in ("fast", "immediate"):

        def interrupted(mode: str = mode) -> None:
            with storage.transaction():
                study = find_study(CachedStorage(storage), "s")
                assert study is not None
                study.ask()
                postgresql.stop(mode)
                study.ask()

        error = error_of(interrupted)
        assert is_outage(error), error
        for call in (lambda: add_trial(storage), lambda: open_storage(url)):
            error = error_of(call)
            assert is_outage(error), error
            assert "refused" in outage_reason(error)
            assert "hush" not in outage_reason(error)
        postgresql.start()
        add_trial(storage, 2.0)
    assert [t.value for t in plainly(url, "s")] == [1.0, 2.0, 2.0]
    storage.close()


def test_a_refusal_by_postgresql_is_no_outage(postgresql: Any) -> None:
    for url in (
        postgresql.url_of("elsewhere"),
        postgresql.url.replace("sweeper:hush", "stranger:hush"),
        f"{postgresql.url}?sslmode=require",
    ):
        error = error_of(lambda url=url: open_storage(url))
        assert isinstance(error, StorageUnreachable)
        assert not is_outage(error), error


def test_postgresql_has_time_limits_that_the_url_may_change(postgresql: Any) -> None:
    url = postgresql.new_database()
    shown = ("lock_timeout", "statement_timeout", "tcp_keepalives_idle", "tcp_user_timeout")
    storage = open_storage(url)
    with storage.engine.connect() as connection:  # type: ignore[attr-defined]
        limits = [connection.exec_driver_sql(f"SHOW {name}").scalar() for name in shown]
        assert limits == ["1min", "5min", "20", "60000"] or limits[:2] == ["1min", "5min"]
        error = error_of(lambda: connection.exec_driver_sql("SET statement_timeout = 50; SELECT pg_sleep(5)"))
        assert is_outage(error)
        assert "statement timeout" in outage_reason(error)
    with storage.engine.connect() as one, storage.engine.connect() as other:  # type: ignore[attr-defined]
        one.exec_driver_sql("LOCK TABLE studies")
        other.exec_driver_sql("SET lock_timeout = 50")
        assert is_outage(error_of(lambda: other.exec_driver_sql("LOCK TABLE studies")))
    storage.close()
    options = sweeps.storage.sql_storage.engine_options(f"{url}?connect_timeout=3&keepalives_idle=7")
    assert "connect_timeout" not in options["connect_args"]
    assert "keepalives_idle" not in options["connect_args"]
    assert options["connect_args"]["keepalives_count"] == 4
    assert options["pool_pre_ping"]


@pytest.mark.parametrize(
    "code", ["ENOSPC", "EROFS", "EIO", "ESTALE", "ECONNREFUSED", "ECONNRESET", "EPIPE", "ETIMEDOUT"]
)
def test_system_errors_that_are_outages(code: str) -> None:
    number = getattr(errno, code)
    assert is_outage(OSError(number, os.strerror(number)))


@pytest.mark.parametrize(
    "error",
    [
        FileNotFoundError(errno.ENOENT, "no such file"),
        PermissionError(errno.EACCES, "permission denied"),
        ValueError("database is locked"),
        KeyError("x"),
        StudyMismatch("another sweep"),
        optuna.exceptions.UpdateFinishedTrialError("told already"),
        AssertionError(),
    ],
)
def test_our_own_errors_are_no_outage(error: Exception) -> None:
    assert not is_outage(error)
    assert outage_reason(error)


def test_sql_errors_are_no_outage(new_database: Callable[[str], str]) -> None:
    storage = open_storage(new_database("study"))
    add_trial(storage)
    with storage.engine.connect() as connection:  # type: ignore[attr-defined]
        for statement in ("SELECT nothing FROM nowhere", "INSERT INTO studies VALUES (1, 's')", "no SQL"):
            error = error_of(lambda statement=statement: connection.exec_driver_sql(statement))
            assert isinstance(error, sqlalchemy.exc.DBAPIError)
            assert not is_outage(error), error
    storage.close()
