"""The watch page as a WSGI application: what it answers, what it refuses, and the one action, stop."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import secrets
import sys
import threading
import traceback
from collections.abc import Iterable
from http import HTTPStatus
from typing import TYPE_CHECKING

from sweeps.errors import SweepError
from sweeps.loopback.report_page import send_report
from sweeps.loopback.requests import READING, answer, is_for_loopback, is_from_own_page
from sweeps.watch.page import page, parts, scripts
from sweeps.watch.snapshot import SnapshotReader

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

    from sweeps.sweep import Sweep

TOKEN_HEADER = "X-Watch-Token"
_JSON, _HTML = "application/json; charset=utf-8", "text/html; charset=utf-8"


class WatchApp:
    """`/` is the page, `/parts` what it puts into itself, `/stop` stops the sweep, `/report` is the report;
    every other path is optuna-dashboard's, read-only and started when it is first asked for.

    Refuses with 403 a Host other than the loopback interface, and a stop that does not come from this page:
    it needs the page's token, which no other site can read.
    """

    def __init__(self, sweep: Sweep, *, reader: SnapshotReader | None = None) -> None:
        self._sweep = sweep
        self._reader = reader or SnapshotReader(sweep)
        self._token = secrets.token_urlsafe(24)
        self._dashboard: WSGIApplication | None = None
        self._starting_dashboard = threading.Lock()
        self._failures: set[str] = set()

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        method, path = environ["REQUEST_METHOD"], environ.get("PATH_INFO", "").rstrip("/")
        if not is_for_loopback(environ):
            reason = "this page answers on the loopback interface only: open it as 127.0.0.1 or localhost"
            return _say(start_response, HTTPStatus.FORBIDDEN, reason)
        try:
            if path == "/stop":
                return self._stop(environ, start_response, method)
            if path == "/report" and method in READING:
                return send_report(self._sweep.run_folder, start_response)
            if path == "/parts" and method in READING:
                return self._parts(environ, start_response)
            if path == "" and method in READING:
                return self._page(start_response)
            return self._optuna_dashboard()(environ, start_response)
        except SweepError as error:
            return _say(start_response, HTTPStatus.SERVICE_UNAVAILABLE, str(error))
        except Exception as error:
            self._log(f"{method} {path}", error)
            return _say(
                start_response, HTTPStatus.INTERNAL_SERVER_ERROR, "this page failed; its terminal says more"
            )

    def _page(self, start_response: StartResponse) -> list[bytes]:
        body = page(self._reader.snapshot(), token=self._token, server=self._server_id).encode()
        hashes = " ".join(f"'{_source_hash(script)}'" for script in scripts())
        policy = (
            f"default-src 'none'; script-src {hashes}; style-src 'unsafe-inline'; img-src data:; "
            "connect-src 'self'; form-action 'none'; base-uri 'none'; frame-ancestors 'none'"
        )
        return answer(start_response, HTTPStatus.OK, body, _HTML, [("Content-Security-Policy", policy)])

    def _parts(self, environ: WSGIEnvironment, start_response: StartResponse) -> list[bytes]:
        shown = parts(self._reader.snapshot())
        body = json.dumps(shown | {"server": self._server_id}).encode()
        version = hashlib.sha256(body).hexdigest()[:16]
        if environ.get("QUERY_STRING", "") == f"have={version}":
            return answer(start_response, HTTPStatus.NO_CONTENT, b"", _JSON)
        return answer(start_response, HTTPStatus.OK, body, _JSON, [("X-Version", version)])

    @property
    def _server_id(self) -> str:
        """Tells a page that another process serves it now, whose token it does not have."""
        return hashlib.sha256(self._token.encode()).hexdigest()[:16]

    def _stop(self, environ: WSGIEnvironment, start_response: StartResponse, method: str) -> list[bytes]:
        if method != "POST":
            allowed = [("Allow", "POST")]
            return _say(start_response, HTTPStatus.METHOD_NOT_ALLOWED, "stop with POST", allowed)
        token = environ.get("HTTP_X_WATCH_TOKEN", "")
        if not is_from_own_page(environ) or not hmac.compare_digest(token.encode(), self._token.encode()):
            return _say(start_response, HTTPStatus.FORBIDDEN, "only this page itself may stop the sweep")
        try:
            self._sweep.stop()
            self._reader.stop_asked()
        except SweepError as error:
            return _say(start_response, HTTPStatus.CONFLICT, str(error))
        return _say(start_response, HTTPStatus.ACCEPTED, "asked to stop")

    def _optuna_dashboard(self) -> WSGIApplication:
        """Raises what `dashboard_app` raises."""
        from sweeps.dashboard.server import dashboard_app

        with self._starting_dashboard:
            if self._dashboard is None:
                self._dashboard = dashboard_app(self._sweep)
            return self._dashboard

    def _log(self, request: str, error: Exception) -> None:
        """Each failure once, as a page repeats its request; not its text, which may hold a database's URL."""
        frame = traceback.extract_tb(error.__traceback__)[-1]
        line = f"{request}: {type(error).__name__} in {frame.name} ({frame.filename}:{frame.lineno})"
        if line not in self._failures:
            self._failures.add(line)
            print(f"watch: {line}", file=sys.stderr)


def _say(
    start_response: StartResponse,
    status: HTTPStatus,
    reason: str,
    headers: Iterable[tuple[str, str]] = (),
) -> list[bytes]:
    return answer(start_response, status, json.dumps({"reason": reason}).encode(), _JSON, headers)


def _source_hash(script: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
