"""Passwords with characters that have a meaning in URLs stay hidden, however they are read."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote

import pytest
import sqlalchemy
from hypothesis import given, settings
from hypothesis import strategies as st

from sweeps.config.storage_url import check_storage, storage_url
from sweeps.config.url_passwords import has_password, is_plain, masked, without_secrets
from sweeps.errors import StorageUnreachable, SweepError
from sweeps.storage.open_storage import check_reachable, open_storage
from sweeps.study.study import peek
from sweeps.tracking.update import _one_line

PIECES = ("hushone", "hushtwo", "hushthree")
passwords = st.lists(
    st.one_of(st.sampled_from(PIECES), st.text("@/#?:%[]&= ", min_size=1, max_size=3)), min_size=1, max_size=6
).map("".join)
"""Some words, which may be shown nowhere, with anything between them."""
urls = st.builds(
    "{}://{}:{}@{}".format,
    st.sampled_from(["postgresql+psycopg", "mysql+pymysql", "postgresql"]),
    st.sampled_from(["me", "me@corp", ""]),
    passwords,
    st.sampled_from(["127.0.0.1:1/db", "localhost:1/db?connect_timeout=2", "[::1]:1/db", "127.0.0.1:1"]),
)


def said_by(function: Callable[[str], object], url: str) -> str:
    with pytest.raises(SweepError) as caught:
        function(url)
    return "".join(traceback.format_exception(caught.value)) + str(caught.value)


@settings(max_examples=40, deadline=None)
@given(url=urls, function=st.sampled_from([open_storage, check_reachable, lambda url: peek(url, "mine")]))
def test_nothing_of_a_password_is_shown_by_what_opens_a_storage(
    url: str, function: Callable[[str], object]
) -> None:
    text = said_by(function, url)
    # The lines of the tests' own code name no password; nor may anything that was said.
    assert not [piece for piece in PIECES if piece in text], text


@settings(max_examples=300)
@given(url=urls)
def test_nothing_of_it_is_in_a_masked_url_or_in_words_about_it(url: str) -> None:
    login_and_rest = url.partition("://")[2]
    about = f"could not reach {url}: {login_and_rest} or {login_and_rest.partition('@')[2]} is unknown"
    for text in (masked(url), without_secrets(about, url), _one_line(ValueError(about), url)):
        assert not [piece for piece in PIECES if piece in text], text


@settings(max_examples=300)
@given(password=passwords)
def test_a_percent_encoded_password_is_always_plain_and_what_it_was(password: str) -> None:
    url = f"postgresql+psycopg://me:{quote(password, safe='')}@host:5432/db?sslmode=require"
    assert is_plain(url)
    assert sqlalchemy.engine.make_url(url).password == password
    assert masked(url) == "postgresql+psycopg://me:***@host:5432/db"
    assert has_password(url)


@settings(max_examples=300)
@given(url=urls)
def test_what_is_plain_is_read_alike_by_the_library_that_opens_it(url: str) -> None:
    if not is_plain(url):
        return
    parts = sqlalchemy.engine.make_url(url)
    assert parts.host in ("127.0.0.1", "localhost", "::1")
    assert parts.port == 1


@pytest.mark.parametrize("password", ["p@ss/w#rd", "p@ss", "a@b@c", "x@y?z=w", "x@y:1/z"])
def test_a_raw_at_sign_is_refused_with_how_to_write_it_before_anything_is_looked_up(
    password: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"postgresql+psycopg://user:{password}@host/db"
    monkeypatch.setattr(sqlalchemy, "create_engine", lambda *_, **__: pytest.fail("connected"))
    with pytest.raises(StorageUnreachable, match=r"percent-encoded.*@ as %40, / as %2F, # as %23") as caught:
        storage_url("env:DB", tmp_path, {"DB": url})
    assert caught.value.exit_code == 2
    assert "postgresql+psycopg://..." in str(caught.value)
    for function in (open_storage, check_reachable):
        assert "@ as %40" in said_by(function, url)


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://me@host/db",
        "postgresql://me:a/b#c?d@host:5432/db",  # read as it is meant, although unusual
        "postgresql+psycopg:///db?host=/var/run/postgresql",
        "postgresql://host/db?user=me%40corp",
        "postgresql://host/db?user=me@corp",
        "mysql://me:pw@[2001:db8::1]:3306/db",
        "mssql+pyodbc://me:pw@host\\instance/db?driver=ODBC+Driver+18",
        "sqlite:////home/me@host/study#1.db",
    ],
)
def test_urls_that_can_be_told_are_plain(url: str) -> None:
    assert is_plain(url)


@pytest.mark.parametrize(
    "reference",
    [
        "env:postgresql://me:hushone@host/db",
        "journal://me:hushone@host/db",
        "me:hushone@postgresql://host/db",
        "hushone:postgresql://host/db",
        "postgresql://me:hushone@hushtwo/hush#three@host/db",
    ],
)
def test_a_sweep_files_storage_is_refused_without_it(reference: str) -> None:
    with pytest.raises(ValueError, match=r"password|must give the|must be") as caught:
        check_storage(reference)
    assert "hush" not in str(caught.value)
