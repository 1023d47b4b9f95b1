"""Which requests may reach optuna-dashboard, which has no authentication of its own."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

REPORT_NAME = "report.html"
_LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})
_READING = frozenset({"GET", "HEAD"})
_LINK = (
    b'<a href="/report" style="position:fixed;top:20px;right:32px;z-index:2000;color:#fff;'
    b'font:500 16px Roboto,sans-serif">Report</a>'
)
_REPORT_POLICY = (
    # The report is one self-contained file: it may load nothing else, nor call the dashboard.
    "default-src 'none'; script-src 'unsafe-inline' 'unsafe-eval'; style-src 'unsafe-inline'; "
    "img-src data: blob:; font-src data:; form-action 'none'; base-uri 'none'; frame-ancestors 'none'"
)
_HEADERS = [
    ("X-Content-Type-Options", "nosniff"),
    ("X-Frame-Options", "SAMEORIGIN"),
    ("Referrer-Policy", "no-referrer"),
    ("Cache-Control", "no-store"),
]


class Guard:
    """A WSGI layer around optuna-dashboard.

    Refuses with 403 a Host other than the loopback interface (a foreign name that resolves to it), and every
    method that could write, unless `writable` and sent by the dashboard's own pages. No response allows other
    sites to read it. `/` leads to the study's page at `home`, `/report` to the report in the run folder.
    `failed` receives method, path and status of server errors, never their text, which may contain a database
    URL.
    """

    def __init__(
        self,
        app: WSGIApplication,
        *,
        home: str,
        run_folder: Path,
        writable: bool,
        failed: Callable[[str], None] = lambda line: None,
    ) -> None:
        self._app = app
        self._home = home
        self._report = run_folder / REPORT_NAME
        self._writable = writable
        self._failed = failed

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        method, path = environ["REQUEST_METHOD"], environ.get("PATH_INFO", "").rstrip("/")
        if (reason := self._refusal(environ, method)) is not None:
            body = json.dumps({"reason": reason}).encode()
            return _answer(start_response, HTTPStatus.FORBIDDEN, body, "application/json")
        if path == "" and method in _READING:
            return _answer(start_response, HTTPStatus.FOUND, b"", "text/plain", [("Location", self._home)])
        if path == "/report" and method in _READING:
            return self._send_report(start_response)
        # optuna-dashboard fails when this header is missing.
        environ.setdefault("HTTP_ACCEPT_ENCODING", "")

        def start(status: str, headers: list[tuple[str, str]], *rest: Any) -> Callable[[bytes], object]:
            if status.startswith("5"):
                self._failed(f"{method} {path}: {status}")
            kept = [(k, v) for k, v in headers if not k.lower().startswith("access-control-")]
            ours = _HEADERS[:-1] if path.startswith("/static/") else _HEADERS
            named = {name for name, _ in ours}
            return start_response(status, [h for h in kept if h[0] not in named] + ours, *rest)

        if path.startswith("/dashboard") and self._report.is_file():
            return self._linked(environ, start)
        return self._app(environ, start)

    def _linked(self, environ: WSGIEnvironment, start_response: StartResponse) -> list[bytes]:
        """The dashboard's page with a link to the report in its top bar."""
        begun: list[Any] = []
        for condition in ("HTTP_IF_MODIFIED_SINCE", "HTTP_IF_NONE_MATCH", "HTTP_RANGE"):
            environ.pop(condition, None)

        def start(*arguments: Any) -> Callable[[bytes], object]:
            begun[:] = arguments
            return lambda data: None

        chunks = self._app(environ, start)
        try:
            page = b"".join(chunks)
        finally:
            getattr(chunks, "close", lambda: None)()
        status, headers, *rest = begun
        if page:
            page = page.replace(b"</body>", _LINK + b"</body>", 1)
            headers = [(k, v) for k, v in headers if k.lower() != "content-length"]
            headers.append(("Content-Length", str(len(page))))
        start_response(status, headers, *rest)
        return [page]

    def _refusal(self, environ: WSGIEnvironment, method: str) -> str | None:
        host = environ.get("HTTP_HOST", "")
        if _hostname(host) not in _LOOPBACK:
            return "this dashboard answers on the loopback interface only: open it as 127.0.0.1 or localhost"
        if method in _READING:
            return None
        if not self._writable:
            return "this dashboard is read-only; `sweeps dashboard --writable` allows changes"
        origin = environ.get("HTTP_ORIGIN")
        is_foreign = origin is not None and urlsplit(origin).netloc != host
        if is_foreign or environ.get("HTTP_SEC_FETCH_SITE", "same-origin") not in ("same-origin", "none"):
            return "only the dashboard's own pages may make changes"
        return None

    def _send_report(self, start_response: StartResponse) -> Iterable[bytes]:
        try:
            body = self._report.read_bytes()
        except OSError:
            text = "There is no report yet. To write it: sweeps report RUN_FOLDER\n"
            return _answer(start_response, HTTPStatus.NOT_FOUND, text.encode(), "text/plain; charset=utf-8")
        policy = [("Content-Security-Policy", _REPORT_POLICY)]
        return _answer(start_response, HTTPStatus.OK, body, "text/html; charset=utf-8", policy)


def _hostname(host: str) -> str | None:
    """The name in a Host header, without the port, which differs behind an SSH tunnel."""
    try:
        parts = urlsplit(f"//{host}")
        return None if "@" in host or parts.path or parts.query or parts.fragment else parts.hostname
    except ValueError:
        return None


def _answer(
    start_response: StartResponse,
    status: HTTPStatus,
    body: bytes,
    content_type: str,
    headers: Iterable[tuple[str, str]] = (),
) -> list[bytes]:
    described = [("Content-Type", content_type), ("Content-Length", str(len(body)))]
    start_response(f"{status.value} {status.phrase}", [*described, *headers, *_HEADERS])
    return [body]
