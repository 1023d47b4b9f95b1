"""Tells the keeper how far a worker is, without waiting for it and without a transaction."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from sweeps.fleet.training_session import TrainingSession
from sweeps.progress.messages import WorkerProgress
from sweeps.study.stages import Stages

SEND_SECONDS = 1.0


class ProgressReports:
    """At most one message a second, and at most one that the keeper has not taken yet.

    So a keeper that is busy or restarted is not flooded, and what it misses is in the next message. An error
    of Ray is passed over: whoever waits for an answer of the keeper learns of it.
    """

    def __init__(
        self,
        send: Callable[[WorkerProgress], Any],
        is_taken: Callable[[Any], bool],
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._send, self._is_taken, self._clock = send, is_taken, clock
        self._next = 0.0
        self._under_way: Any = None

    def training(self, session: TrainingSession) -> None:
        """Called after each piece of work; tells how far the trials are when it is time to."""
        if self._clock() >= self._next:
            self._offer(
                lambda: WorkerProgress(
                    at=self._clock(),
                    trials=tuple(session.progress()),
                    seats=session.num_seats,
                    checkpoint_seconds=session.checkpoint_seconds,
                    eval_tokens=session.eval_tokens,
                )
            )

    @contextmanager
    def starting(self, stages: Stages) -> Iterator[None]:
        """Tells the stages while the block runs, from a thread: loading a base makes no other calls."""
        ended = threading.Event()

        def tell() -> None:
            while not ended.wait(SEND_SECONDS / 2):
                if self._clock() >= self._next:
                    self._offer(lambda: WorkerProgress(at=self._clock(), stages=tuple(stages.now())))

        thread = threading.Thread(target=tell, name="stages", daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()
            self._next = 0.0

    def _offer(self, progress: Callable[[], WorkerProgress]) -> None:
        self._next = self._clock() + SEND_SECONDS
        with suppress(Exception):  # any error of Ray
            if self._under_way is None or self._is_taken(self._under_way):
                self._under_way = self._send(progress())
