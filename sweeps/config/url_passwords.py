"""Passwords in URLs: whether one is there, whether it is written so that it can be told, and how to hide it.

In a URL, a user name or password has its "@" as %40. Written raw, it ends the login early: the rest of the
password is then read as a host, and would be shown, looked up and sent there.
"""

from __future__ import annotations

import re
from urllib.parse import parse_qsl, quote, unquote, urlsplit

SECRET_QUERY_KEYS = frozenset({"password", "passwd", "pwd", "sslpassword"})
QUOTED = ", ".join(f"{sign} as {quote(sign, safe='')}" for sign in "@/#?:%[]")
"""How to write, in a password, what has a meaning of its own in a URL."""
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

    False for a login with a raw "@", for one without "://", and for a host or port that cannot be one.
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
    # In the query of a URL without a login it stands for itself, if no reader takes what is before for one.
    return parts["login"] is None and re.match(r"[^:/]*/", rest) is not None


def has_password(url: str) -> bool:
    """Whether a database URL holds a password, in its login or its query; True when that cannot be told."""
    try:
        parts = urlsplit(url)
        query = {key.lower() for key, _ in parse_qsl(parts.query, keep_blank_values=True)}
        if parts.scheme.partition("+")[0] == "sqlite":
            return False
        # A password with an unquoted "/", "?" or "#" ends the login early: then "@" stands in a later part.
        broken = "@" in parts.path + parts.query + parts.fragment
        return bool(parts.password) or broken or bool(query & SECRET_QUERY_KEYS)
    except ValueError:
        return True


def masked(url: str) -> str:
    """A database's URL with its password hidden and without its query, which may hold another.

    Of one whose login cannot be told, the scheme alone.
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
    """What a program said about a URL, without what is secret in it, as it is written or meant.

    Nothing but a hint remains of what was said about one whose login cannot be told.
    """
    if "://" in url and not is_plain(url):
        return "what it says may hold parts of a password, which is not percent-encoded"
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
