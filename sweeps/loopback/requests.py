"""Which requests may reach a page on the loopback interface, and how they are answered."""

from __future__ import annotations

from collections.abc import Iterable
from http import HTTPStatus
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIEnvironment

READING = frozenset({"GET", "HEAD"})
HEADERS = [
    ("X-Content-Type-Options", "nosniff"),
    ("X-Frame-Options", "SAMEORIGIN"),
    ("Referrer-Policy", "no-referrer"),
    ("Cache-Control", "no-store"),
]
_LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})


def is_for_loopback(environ: WSGIEnvironment) -> bool:
    """Whether the Host is the loopback interface: a foreign name may resolve to it (DNS rebinding)."""
    return _hostname(environ.get("HTTP_HOST", "")) in _LOOPBACK


def is_from_own_page(environ: WSGIEnvironment) -> bool:
    """Whether the browser says that no other site sent the request; also where it says nothing."""
    origin = environ.get("HTTP_ORIGIN")
    is_foreign = origin is not None and urlsplit(origin).netloc != environ.get("HTTP_HOST", "")
    return not is_foreign and environ.get("HTTP_SEC_FETCH_SITE", "same-origin") in ("same-origin", "none")


def answer(
    start_response: StartResponse,
    status: HTTPStatus,
    body: bytes,
    content_type: str,
    headers: Iterable[tuple[str, str]] = (),
) -> list[bytes]:
    """A whole response, with the headers that every page has."""
    described = [("Content-Type", content_type), ("Content-Length", str(len(body)))]
    start_response(f"{status.value} {status.phrase}", [*described, *headers, *HEADERS])
    return [body]


def _hostname(host: str) -> str | None:
    """The name in a Host header, without the port, which differs behind an SSH tunnel."""
    try:
        parts = urlsplit(f"//{host}")
        return None if "@" in host or parts.path or parts.query or parts.fragment else parts.hostname
    except ValueError:
        return None
