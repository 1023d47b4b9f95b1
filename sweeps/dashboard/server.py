"""The dashboard's server: a port on the loopback interface and a thread per request."""

from __future__ import annotations

import functools
import io
import logging
import socketserver
import sys
from typing import TYPE_CHECKING, Any, TextIO
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

import optuna

from sweeps.dashboard.guard import REPORT_NAME, Guard
from sweeps.dashboard.study_view import StudyView
from sweeps.errors import PortTaken
from sweeps.storage.open_storage import open_storage
from sweeps.storage.optuna_private import storage_of, study_id_of
from sweeps.study.lease import refuse_unless_free

if TYPE_CHECKING:
    from sweeps.sweep import Sweep

HOST = "127.0.0.1"
FIRST_PORT = 8080
NUM_PORTS = 20


class _Handler(WSGIRequestHandler):
    """Logs neither requests nor the tracebacks of closed connections."""

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def get_stderr(self) -> TextIO:  # type: ignore[override]
        return io.StringIO()


class DashboardServer(socketserver.ThreadingMixIn, WSGIServer):
    """A dashboard with an open port; `serve` answers requests."""

    daemon_threads = True

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.server_port}"

    def serve(self) -> None:
        """Answer requests until `shutdown` or Ctrl-C, which is raised as KeyboardInterrupt."""
        try:
            self.serve_forever()
        finally:
            self.server_close()

    def handle_error(self, request: Any, client_address: Any) -> None:
        pass


def open_dashboard(sweep: Sweep, *, port: int | None = None, writable: bool = False) -> DashboardServer:
    """The dashboard of a sweep that has started, also while it runs.

    `port` None: the first free one from 8080 on. Raises PortTaken, what `Sweep.study` raises, and StudyHeld
    for a `writable` one while the sweep runs, when only its keeper may write.
    """
    # Takes a second to import.
    from optuna_dashboard import wsgi

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = sweep.study()
    if writable:
        refuse_unless_free(study, seconds=sweep.config.reliability.lease_seconds)
        study = optuna.load_study(study_name=study.study_name, storage=open_storage(sweep.storage_url))
    report = sweep.run_folder / REPORT_NAME

    def study_note() -> str:
        if report.is_file():
            return "[Report of this sweep](/report)"
        return f"No report yet: `sweeps report {sweep.run_folder}` writes it; then it is linked here."

    view = StudyView(storage_of(study), study_id_of(study), writable=writable, study_note=study_note)
    # Its log messages repeat those of the database driver, which may contain the URL.
    log = logging.getLogger("optuna_dashboard")
    log.propagate, log.handlers = False, [logging.NullHandler()]
    guard = Guard(
        wsgi(view),
        home=f"/dashboard/studies/{study_id_of(study)}",
        run_folder=sweep.run_folder,
        writable=writable,
        # Each line once: a page repeats a failing request every few seconds.
        failed=functools.cache(lambda line: print(f"dashboard: {line}", file=sys.stderr)),
    )
    server = _bind(port)
    server.set_app(guard)
    return server


def _bind(port: int | None) -> DashboardServer:
    ports = range(FIRST_PORT, FIRST_PORT + NUM_PORTS) if port is None else [port]
    for number in ports:
        try:
            return DashboardServer((HOST, number), _Handler)
        except PermissionError:
            raise PortTaken(f"port {number} may not be opened by this user; choose one above 1023") from None
        except OSError:
            continue
    if port is None:
        raise PortTaken(
            f"ports {FIRST_PORT} to {FIRST_PORT + NUM_PORTS - 1} are all taken; choose another with --port"
        )
    raise PortTaken(f"port {port} is taken; choose another, or leave out --port for the first free one")
