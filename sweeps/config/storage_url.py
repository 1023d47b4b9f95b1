"""`storage`: where the study is kept. The program never writes down its password.

A sweep file gives the storage as a URL without a password, as the environment variable that holds the whole
URL (`env:NAME`), or as a journal file (`journal:PATH`). A password in the file is refused: sweep files are
copied, committed and shared, and the resolved file would be one more copy.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path

from files_and_text.nearest_name import nearest
from sweeps.config.url_passwords import QUOTED, has_password, is_plain, masked
from sweeps.errors import StorageUnreachable

ENVIRONMENT_VARIABLE = "SWEEPS_STORAGE"
"""Used when a sweep file has no `storage`."""

HOW_TO_WRITE = (
    "a database URL reads like postgresql+psycopg://user@host:5432/database; in a user name or password, "
    f"characters that have a meaning in URLs are percent-encoded: {QUOTED}"
)
_DATABASES = ("sqlite", "postgresql", "mysql", "mariadb", "oracle", "mssql")
STORAGE_PATTERN = rf"^(env:[A-Za-z_][A-Za-z0-9_]*|journal:(?!//)(.*[^/\s]|.*[^\s/]\s+)|({'|'.join(_DATABASES)})(\+\w+)?://.*)$"
"""What `check_storage` accepts, as far as a pattern can say it."""
_ENV = re.compile(r"env:([A-Za-z_][A-Za-z0-9_]*)")
_JOURNAL = "journal:"
_SQLITE = re.compile(r"(sqlite(?:\+\w+)?:///)([^?]+)(\?.*)?")


def check_storage(text: str) -> str:
    """`env:NAME`, `journal:PATH` or a database URL without a password; errors never repeat a login."""
    if text.startswith("env:"):
        if not _ENV.fullmatch(text):
            raise ValueError(
                "must give the name of an environment variable after env:, such as env:SWEEPS_STORAGE; got "
                + _unless_secret(text)
            )
        return text
    if text.startswith(_JOURNAL):
        path = text.removeprefix(_JOURNAL)
        if path.startswith("//") or not path.strip() or path.endswith("/") or "\0" in path:
            raise ValueError(
                "must give the path of a file after journal:, such as journal:study.log; got "
                + _unless_secret(text)
            )
        return text
    scheme, separator, _ = text.partition("://")
    if not separator:
        raise ValueError(
            "must be a database URL such as postgresql+psycopg://user@host/database, journal:PATH or env:NAME"
        )
    database = scheme.partition("+")[0].lower()
    if database not in _DATABASES:
        hint = nearest(database, _DATABASES)
        got = repr(database) if re.fullmatch(r"[\w.-]*", database) else "something with a login in it"
        raise ValueError(f"must be the URL of a database that Optuna opens; got {got}.{hint}")
    if has_password(text):
        raise ValueError(
            "must not hold a password: sweep files are copied and shared. Put the whole URL into an "
            f"environment variable and write env:NAME (or nothing: {ENVIRONMENT_VARIABLE} is looked up), or "
            "leave the password out and let the database's own file give it (~/.pgpass, ~/.my.cnf)"
        )
    if database == "sqlite" and (not _SQLITE.fullmatch(text) or ":memory:" in text or "mode=memory" in text):
        raise ValueError(
            "must be a file, because a sweep goes on after an interruption; got SQLite in memory"
        )
    return text


def _unless_secret(text: str) -> str:
    """The text, unless it may contain a login."""
    return "something with a login in it" if "@" in text or "://" in text else repr(text)


def check_login(url: str) -> None:
    """Raise StorageUnreachable if it is uncertain where the URL's login ends. Nothing is looked up."""
    if not url.startswith(_JOURNAL) and "://" in url and not is_plain(url):
        raise StorageUnreachable(f"storage {masked(url)} cannot be opened: {HOW_TO_WRITE}")


def absolute_storage(reference: str | None, folder: Path) -> str | None:
    """The same reference with a relative SQLite or journal path made absolute from `folder`."""
    if reference is not None and reference.startswith(_JOURNAL):
        path = Path(reference.removeprefix(_JOURNAL)).expanduser()
        return f"{_JOURNAL}{os.path.abspath(folder / path)}"
    match = _SQLITE.fullmatch(reference or "")
    if match is None or match[2].startswith("file:"):
        return reference
    return f"{match[1]}{os.path.abspath(folder / match[2])}{match[3] or ''}"


def storage_url(reference: str | None, run_folder: Path, environ: Mapping[str, str] | None = None) -> str:
    """The URL to open: what `env:NAME` holds, the URL itself, or `study.db` in the run folder.

    The result may hold a password: open it, never write or log it. Raises StorageUnreachable if the variable
    is not set, or `check_login` refuses the URL.
    """
    if reference is None:
        file = str(Path(os.path.abspath(run_folder)) / "study.db")
        # In a URL, ? begins a query and % an encoded character.
        return "sqlite:///" + file.replace("%", "%25").replace("?", "%3F")
    name = _ENV.fullmatch(reference)
    if name is None:
        check_login(reference)
        return reference
    url = (os.environ if environ is None else environ).get(name[1], "").strip()
    if not url:
        raise StorageUnreachable(
            f"storage: {reference} needs the environment variable {name[1]} to hold the URL; it is not set."
        )
    check_login(url)
    return url
