"""Storages that cannot be opened: why, without the password, and nothing is written."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy

from sweeps.config.url_passwords import masked
from sweeps.errors import StorageUnreachable
from sweeps.storage.open_storage import _reason, check_reachable, holds_studies, open_storage
from sweeps.study.study import peek


def closed_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@pytest.mark.parametrize("function", [open_storage, check_reachable, lambda url: peek(url, "mine")])
@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("postgresql+psycopg://me:se%40cret@127.0.0.1:{port}/db", r"[Cc]onnection refused"),
        ("mysql+pymysql://me:se%40cret@127.0.0.1:{port}/db", "."),
        ("oracle+cx_oracle://me:se%40cret@127.0.0.1:{port}/db", "."),
        ("postgressql://me:se%40cret@127.0.0.1:{port}/db", "postgressql"),
        ("se@cret", "a database URL reads like postgresql"),
        ("se@cret://", "."),
        ("postgresql://me:se%40cret@127.0.0.1:port/db", "a database URL reads like postgresql"),
        ("postgresql+psycopg://127.0.0.1:{port}/db?user=me&password=se%40cret", r"[Cc]onnection refused"),
    ],
    ids=[
        "closed port",
        "no driver",
        "other driver",
        "wrong scheme",
        "no url",
        "half a url",
        "bad port",
        "in query",
    ],
)
def test_an_unreachable_storage_says_why_without_its_password(
    function: Callable[[str], object], url: str, says: str
) -> None:
    with pytest.raises(StorageUnreachable, match=says) as caught:
        function(url.format(port=closed_port()))
    assert caught.value.exit_code == 2
    text = str(caught.value)
    assert "se@cret" not in text.replace("se@cret://...", "")
    assert "se%40cret" not in text
    if "@127" in url and "{port}" in url:
        assert "me:***@127.0.0.1" in text


def test_a_sqlite_file_in_a_missing_folder_is_unreachable(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    for name in ("file/study.db", "missing/study.db", "missing/deeper/study.db"):
        with pytest.raises(StorageUnreachable, match="there is no folder"):
            check_reachable(f"sqlite:///{tmp_path / name}")
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_the_run_folder_itself_need_not_exist_yet(tmp_path: Path) -> None:
    run = tmp_path / "runs" / "mine"
    check_reachable(f"sqlite:///{run / 'study.db'}", run)
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_no_database_is_unreachable_and_stays_as_it_is(tmp_path: Path) -> None:
    file = tmp_path / "study.db"
    file.write_text("my diary " * 200)
    for function in (open_storage, check_reachable, lambda url: peek(url, "mine")):
        with pytest.raises(StorageUnreachable, match="not a database"):
            function(f"sqlite:///{file}")
    assert file.read_text() == "my diary " * 200


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_permission_is_unreachable(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(StorageUnreachable, match="cannot be written"):
        check_reachable(f"sqlite:///{tmp_path / 'study.db'}")
    tmp_path.chmod(0o700)


def test_a_password_in_a_drivers_message_is_masked() -> None:
    url = "postgresql://me:se%40cret@host/db?sslpassword=hush"
    said = _reason(ValueError("cannot use se@cret, se%40cret or hush\nmore"), url)
    assert said == "cannot use ***, *** or ***"


def test_masked_hides_passwords_and_texts_that_are_no_url() -> None:
    assert masked("postgresql://me:hush@host/db") == "postgresql://me:***@host/db"
    assert masked("hush") == "(no database URL)"
    assert "hush" not in masked("hu://sh://hush")


def test_a_postgresql_database_that_does_not_exist_is_unreachable(postgresql: Any) -> None:
    url = postgresql.new_database()
    check_reachable(url)
    assert peek(url, "t") is None
    with pytest.raises(StorageUnreachable, match="does not exist") as caught:
        check_reachable(postgresql.url_of("elsewhere"))
    assert "hush" not in str(caught.value)


def test_a_database_whose_tables_are_just_being_created_is_not_opened_for_reading(
    new_database: Callable[[str], str],
) -> None:
    """Optuna stamps the version last; a reader that stamps it first makes the creating process fail."""
    url = new_database("young")
    engine = sqlalchemy.create_engine(url)
    with engine.begin() as connection:
        connection.execute(sqlalchemy.text("DELETE FROM alembic_version"))
    assert peek(url, "t") is None
    with engine.connect() as connection:
        assert connection.scalar(sqlalchemy.text("SELECT count(*) FROM alembic_version")) == 0
    engine.dispose()
    open_storage(url).close()
    assert holds_studies(url)
