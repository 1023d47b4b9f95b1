"""Where the study is kept, and that no password is written anywhere."""

from __future__ import annotations

from pathlib import Path

import pytest

from sweeps.config.storage_url import absolute_storage, check_storage, storage_url
from sweeps.config.url_passwords import has_password
from sweeps.errors import StorageUnreachable
from sweeps.storage.open_storage import open_storage, sqlite_file


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://me@host/db",
        "postgresql+psycopg://me@host:5432/db?sslmode=require",
        "mysql+pymysql://host/db",
        "sqlite:///study.db",
        "sqlite:////abs/s@me.db?timeout=5",
        "env:MY_STORAGE",
        "journal:study.log",
        "journal:/abs/s@me study.log",
    ],
)
def test_references_without_a_password_are_kept(url: str) -> None:
    assert check_storage(url) == url


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://me:pw@host/db",
        "postgresql://:pw@host/db",
        "postgresql://me@host/db?user=x&Password=pw",
        "mysql://me:a/b@host/db",
        "mysql://me:a#b@host/db",
        "mysql://me:a?b@host/db",
        "mysql://[broken",
    ],
)
def test_passwords_are_seen_however_they_are_written(url: str) -> None:
    assert has_password(url)
    with pytest.raises(ValueError, match="must not hold a password"):
        check_storage(url)


def test_the_default_is_a_file_in_the_run_folder(tmp_path: Path) -> None:
    assert storage_url(None, tmp_path) == f"sqlite:///{tmp_path}/study.db"


def test_a_variable_is_resolved_only_when_asked() -> None:
    secret = "postgresql://me:pw@host/db"
    assert storage_url("env:DB", Path("x"), {"DB": secret}) == secret
    with pytest.raises(StorageUnreachable, match="DB to hold the URL; it is not set") as caught:
        storage_url("env:DB", Path("x"), {"DB": " "})
    assert caught.value.exit_code == 2


def test_relative_sqlite_files(tmp_path: Path) -> None:
    assert absolute_storage("sqlite+pysqlite:///a/../s.db?timeout=5", tmp_path) == (
        f"sqlite+pysqlite:///{tmp_path}/s.db?timeout=5"
    )
    for same in (None, "env:DB", "mysql://host/db", "sqlite:////abs/s.db"):
        assert absolute_storage(same, tmp_path) == same


@pytest.mark.parametrize(
    "text", ["journal:", "journal: ", "journal:///study.log", "journal:folder/", "journal:a\0b"]
)
def test_a_journal_needs_the_path_of_a_file(text: str) -> None:
    with pytest.raises(ValueError, match=r"must give the path of a file after journal:"):
        check_storage(text)


def test_relative_journals(tmp_path: Path) -> None:
    assert absolute_storage("journal:a/../study.log", tmp_path) == f"journal:{tmp_path}/study.log"
    assert absolute_storage("journal:/abs/study.log", tmp_path) == "journal:/abs/study.log"
    assert storage_url(f"journal:{tmp_path}/study.log", Path("x")) == f"journal:{tmp_path}/study.log"


@pytest.mark.parametrize("name", ["a b", "ü ñ", "50%20", "what?now", "a#b", "a@b:c", "100%"])
def test_the_study_stands_in_the_run_folder_whatever_its_name(tmp_path: Path, name: str) -> None:
    folder = tmp_path / name / "run"
    folder.mkdir(parents=True)
    url = storage_url(None, folder)
    assert sqlite_file(url) == folder / "study.db"
    open_storage(url).close()
    assert [file.name for file in tmp_path.rglob("*") if file.is_file()] == ["study.db"]
    assert (folder / "study.db").is_file()
