"""Passwords in URLs: whether a URL holds one, where the login ends, and how to hide it.

In a URL, the "@" of a user name or password is written %40. A raw "@" ends the login early: the rest of the
password is read as the host, and would be shown, looked up and connected to.
"""

from __future__ import annotations

import re
from urllib.parse import parse_qsl, quote, unquote, urlsplit

SECRET_QUERY_KEYS = frozenset({"password", "passwd", "pwd", "sslpassword"})
QUOTED = ", ".join(f"{sign} as {quote(sign, safe='')}" for sign in "@/#?:%[]")
"""How to write characters that have a meaning in URLs."""
HIDDEN = "***"

_FILES = ("sqlite", "file", "local")
_SCHEME = re.compile(r"[A-Za-z][\w+.-]*")
_PLAIN = re.compile(
    r"""
    (?P<login>[^:/?\#]*(:(?P<password>[^@]*))?@)?
    (?P<host>\[[^\]/?@\#]*\]|[\w.,\\%-]*)
    (?P<port>:\d+)?
    (?P<path>/(?!/)[^?@\#:]*)?
    (?P<query>\?.*)?
    """,
    re.VERBOSE | re.DOTALL,
)


def is_plain(url: str) -> bool:
    """Whether it is certain where the login of a URL ends.

    False for a login with a raw "@", a URL without "://", and an impossible host or port.
    """
    scheme, separator, rest = url.partition("://")
    if not separator or not _SCHEME.fullmatch(scheme):
        return False
    if scheme.startswith(_FILES):  # no login, and any character in a path
        return True
    parts = _PLAIN.fullmatch(rest)
    if parts is None:
        return False
    if "@" not in (parts["query"] or ""):
        return True
    # In a query, a raw "@" is harmless if the URL has no login and no reader takes what is before it for one.
    return parts["login"] is None and re.match(r"[^:/]*/", rest) is not None


def has_password(url: str) -> bool:
    """Whether a URL holds a password, in its login or its query; True when that is uncertain."""
    try:
        parts = urlsplit(url)
        query = {key.lower() for key, _ in parse_qsl(parts.query, keep_blank_values=True)}
        if parts.scheme.partition("+")[0] == "sqlite":
            return False
        # A raw "/", "?" or "#" in a password ends the login early: then "@" is in a later part.
        broken = "@" in parts.path + parts.query + parts.fragment
        return bool(parts.password) or broken or bool(query & SECRET_QUERY_KEYS)
    except ValueError:
        return True


def masked(url: str) -> str:
    """A URL with its password hidden and without its query, which may hold another.

    Only the scheme if it is uncertain where the login ends.
    """
    scheme, separator, rest = url.partition("://")
    if not separator or not _SCHEME.fullmatch(scheme):
        return "(no database URL)"
    if scheme.startswith(_FILES):
        return url.partition("?")[0]
    parts = _PLAIN.fullmatch(rest)
    if parts is None or not is_plain(url):
        return f"{scheme}://..."
    login = parts["login"] or ""
    if parts["password"] is not None:
        login = f"{login.partition(':')[0]}:{HIDDEN}@"
    return f"{scheme}://{login}{parts['host']}{parts['port'] or ''}{parts['path'] or ''}"


def without_secrets(text: str, url: str) -> str:
    """A program's message about a URL with the URL's passwords hidden, percent-encoded or not.

    Nothing of the message remains if it is uncertain where the login ends.
    """
    if "://" in url and not is_plain(url):
        return "its message is not shown: it may contain part of a password that is not percent-encoded"
    secrets = set[str]()
    parts = _PLAIN.fullmatch(url.partition("://")[2])
    if parts is not None and parts["password"]:
        secrets |= {parts["password"], unquote(parts["password"])}
    for pair in (parts["query"] or "?")[1:].split("&") if parts is not None else ():
        key, _, value = pair.partition("=")
        if "pass" in key.lower() or key.lower() == "pwd":
            secrets |= {value, unquote(value), unquote(value.replace("+", " "))}
    for secret in sorted(secrets - {""}, key=len, reverse=True):
        text = text.replace(secret, HIDDEN)
    return text
