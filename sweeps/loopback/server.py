"""A WSGI server on the loopback interface, with a thread per request."""

from __future__ import annotations

import io
import socketserver
from typing import Any, TextIO
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

from sweeps.errors import PortTaken

HOST = "127.0.0.1"
FIRST_PORT = 8080
NUM_PORTS = 20


class _Handler(WSGIRequestHandler):
    """Logs neither requests nor the tracebacks of closed connections."""

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def get_stderr(self) -> TextIO:  # type: ignore[override]
        return io.StringIO()


class LoopbackServer(socketserver.ThreadingMixIn, WSGIServer):
    """A server with an open port; `serve` answers requests."""

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


def bind(port: int | None) -> LoopbackServer:
    """A server at `port`, or at the first free one from 8080 on. Raises PortTaken."""
    ports = range(FIRST_PORT, FIRST_PORT + NUM_PORTS) if port is None else [port]
    for number in ports:
        try:
            return LoopbackServer((HOST, number), _Handler)
        except PermissionError:
            raise PortTaken(f"port {number} may not be opened by this user; choose one above 1023") from None
        except OSError:
            continue
    if port is None:
        raise PortTaken(
            f"ports {FIRST_PORT} to {FIRST_PORT + NUM_PORTS - 1} are all taken; choose another with --port"
        )
    raise PortTaken(f"port {port} is taken; choose another, or leave out --port for the first free one")
