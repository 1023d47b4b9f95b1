"""A dashboard served on any free port, and a client that asks it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from sweeps.dashboard.server import open_dashboard
from sweeps.loopback.server import LoopbackServer
from sweeps.sweep import Sweep
from tests.sweeps.asking import Client
from tests.sweeps.watched_sweep import watched as watched


@pytest.fixture
def serve() -> Iterator[Callable[..., Client]]:
    """`serve(sweep, writable=False)` -> a client of its dashboard, on any free port."""
    running: list[tuple[LoopbackServer, threading.Thread]] = []

    def start(sweep: Sweep, **options: Any) -> Client:
        server = open_dashboard(sweep, **options)
        thread = threading.Thread(target=server.serve, daemon=True)
        thread.start()
        running.append((server, thread))
        return Client(server)

    yield start
    for server, thread in running:
        server.shutdown()
        thread.join(timeout=10)
        assert not thread.is_alive()
