"""Which requests may reach optuna-dashboard, which has no authentication of its own."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sweeps.loopback.report_page import has_report, send_report
from sweeps.loopback.requests import HEADERS, READING, answer, is_for_loopback, is_from_own_page

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

_LINK = (
    b'<a href="/report" style="position:fixed;top:20px;right:32px;z-index:2000;color:#fff;'
    b'font:500 16px Roboto,sans-serif">Report</a>'
)


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
        self._run_folder = run_folder
        self._writable = writable
        self._failed = failed

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        method, path = environ["REQUEST_METHOD"], environ.get("PATH_INFO", "").rstrip("/")
        if (reason := self._refusal(environ, method)) is not None:
            body = json.dumps({"reason": reason}).encode()
            return answer(start_response, HTTPStatus.FORBIDDEN, body, "application/json")
        if path == "" and method in READING:
            return answer(start_response, HTTPStatus.FOUND, b"", "text/plain", [("Location", self._home)])
        if path == "/report" and method in READING:
            return send_report(self._run_folder, start_response)
        # optuna-dashboard fails when this header is missing.
        environ.setdefault("HTTP_ACCEPT_ENCODING", "")

        def start(status: str, headers: list[tuple[str, str]], *rest: Any) -> Callable[[bytes], object]:
            if status.startswith("5"):
                self._failed(f"{method} {path}: {status}")
            kept = [(k, v) for k, v in headers if not k.lower().startswith("access-control-")]
            ours = HEADERS[:-1] if path.startswith("/static/") else HEADERS
            named = {name for name, _ in ours}
            return start_response(status, [h for h in kept if h[0] not in named] + ours, *rest)

        if path.startswith("/dashboard") and has_report(self._run_folder):
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
        if not is_for_loopback(environ):
            return "this dashboard answers on the loopback interface only: open it as 127.0.0.1 or localhost"
        if method in READING:
            return None
        if not self._writable:
            return "this dashboard is read-only; `sweeps dashboard --writable` allows changes"
        if not is_from_own_page(environ):
            return "only the dashboard's own pages may make changes"
        return None
