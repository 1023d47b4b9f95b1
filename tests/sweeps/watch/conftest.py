"""A client that asks a watch page as a browser would."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

import pytest

from sweeps.loopback.server import LoopbackServer, bind
from sweeps.sweep import Sweep
from sweeps.watch.app import WatchApp
from sweeps.watch.snapshot import SnapshotReader
from tests.sweeps.asking import Client
from tests.sweeps.watched_sweep import watched as watched


@pytest.fixture
def serve() -> Iterator[Callable[..., Client]]:
    """`serve(sweep)` -> a client of its page, on any free port; every question reads the study."""
    running: list[tuple[LoopbackServer, threading.Thread]] = []

    def start(sweep: Sweep) -> Client:
        server = bind(None)
        server.set_app(WatchApp(sweep, reader=SnapshotReader(sweep, pause=lambda _: 0.0)))
        thread = threading.Thread(target=server.serve, daemon=True)
        thread.start()
        running.append((server, thread))
        return Client(server)

    yield start
    for server, thread in running:
        server.shutdown()
        thread.join(timeout=10)
        assert not thread.is_alive()
