"""Which errors mean that the storage is unavailable for now, so that the same call may succeed later."""

from __future__ import annotations

import errno
import re
import sqlite3
from collections.abc import Callable, Iterator

import sqlalchemy.exc

from sweeps.errors import SweepError

_OUTAGE_ERRNOS = frozenset(
    getattr(errno, name)
    for name in (
        *("ENOSPC", "EDQUOT", "EROFS", "EIO", "ENXIO", "ENODEV", "ESTALE", "ENOLCK", "EBUSY", "EAGAIN"),
        *("EHOSTDOWN", "EHOSTUNREACH", "ENETDOWN", "ENETUNREACH", "ENETRESET", "ENOTCONN", "ETIMEDOUT"),
    )
    if hasattr(errno, name)
)
_OUTAGE_SQLITE = frozenset(
    {
        *(sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR),
        *(sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PROTOCOL),
    }
)
_OUTAGE_SQLSTATES = (
    *("08", "53", "58"),  # connection, resources (disk full, too many connections), system and I/O errors
    *("57P01", "57P02", "57P03"),  # shut down, crashed, starting up
    *("57014", "55P03", "25P03", "25P04"),  # our own time limits, and a lock that is held
    *("40001", "40003", "40P01"),  # rolled back for another transaction, deadlock
    "25006",  # read-only: a standby that is not promoted yet
)
_REFUSED = re.compile(
    # The server is there and refuses; a person has to change something. Drivers give no code for an error
    # while connecting.
    r"authentication failed|no pg_hba\.conf entry|(database|role|user) \S+ does not exist|permission denied"
    r"|no password supplied|access denied|unknown database|is not permitted to log in"
    r"|invalid (dsn|connection)|certificate|SSL (was|is) required|server does not support SSL",
    re.IGNORECASE,
)


class StorageOutage(Exception):
    """Raised by our own storages: locked by another process, or unavailable for now."""


def is_outage(error: BaseException) -> bool:
    """Whether a call that raised `error` may succeed when it is repeated later, unchanged.

    True for a server that is stopped, starting or unreachable, a lock held by another process, a full or
    failing disk; False for errors of the call itself, and for those that a person has to fix.
    """
    return any(_is_outage(each) for each in error_chain(error, _wrapped))


def outage_reason(error: BaseException) -> str:
    """The first line of the innermost error, which holds no password: drivers put none into it."""
    *_, innermost = error_chain(error, _wrapped)
    return next(
        (line.strip() for line in str(innermost).splitlines() if line.strip()), type(innermost).__name__
    )


def error_chain(
    error: BaseException, wrapped: Callable[[BaseException], BaseException | None]
) -> Iterator[BaseException]:
    """The error, the one that it wraps, and so on; each once."""
    seen: set[int] = set()
    following: BaseException | None = error
    while following is not None and id(following) not in seen:
        seen.add(id(following))
        yield following
        following = wrapped(following)


def _wrapped(error: BaseException) -> BaseException | None:
    """Optuna, SQLAlchemy and our own `SweepError` wrap the driver's error."""
    original = error.orig if isinstance(error, sqlalchemy.exc.StatementError) else None
    return original or error.__cause__ or (error.__context__ if isinstance(error, SweepError) else None)


def _is_outage(error: BaseException) -> bool:
    if isinstance(error, StorageOutage | ConnectionError | TimeoutError):
        return True
    if isinstance(error, OSError):
        return error.errno in _OUTAGE_ERRNOS
    if isinstance(error, sqlite3.Error):
        code = getattr(error, "sqlite_errorcode", None)
        # The low byte is the primary code.
        return code is not None and code & 0xFF in _OUTAGE_SQLITE
    if isinstance(error, sqlalchemy.exc.TimeoutError):  # no connection in the pool became free
        return True
    if isinstance(error, sqlalchemy.exc.DBAPIError):
        return error.connection_invalidated or _is_driver_outage(error.orig)
    return False


def _is_driver_outage(error: BaseException | None) -> bool:
    if error is None or isinstance(error, sqlite3.Error):
        return False  # decided by its code
    state = getattr(error, "sqlstate", None) or getattr(error, "pgcode", None)
    if state is not None:
        return str(state).startswith(_OUTAGE_SQLSTATES)
    if type(error).__name__ not in ("OperationalError", "InterfaceError", "ConnectionTimeout"):
        return False
    return _REFUSED.search(str(error)) is None
