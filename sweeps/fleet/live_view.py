"""Shows a run while it lasts: a live table in a terminal, otherwise one plain line per event."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from files_and_text.numbers import duration
from sweeps.study.status import RunningTrial, Status

SHOWN_EVENTS = 6
POLL_SECONDS, MAX_PAUSE_SECONDS = 0.5, 10.0
MAX_KEEPER_SHARE = 0.1
"""Share of the keeper's time that polling may take: in a large study a status takes long."""


class LiveView:
    """Polls the keeper's status in a thread and shows it until closed.

    `status(n)` returns the present status with its events from number n on. The same thread passes on a
    requested stop, because a call of Ray from a signal handler could deadlock.
    """

    def __init__(
        self,
        status: Callable[[int], Status | None],
        request_stop: Callable[[], None],
        console: Console | None = None,
        *,
        poll_seconds: float = POLL_SECONDS,
    ) -> None:
        self.stop_wanted = threading.Event()
        self._status = status
        self._request_stop = request_stop
        self._console = console or Console()
        self._poll_seconds = self._pause = poll_seconds
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="view", daemon=True)
        self._events: list[str] = []
        self._life, self._num_events = "", 0
        self._asked_to_stop = False
        self._ending = False
        self._is_unreachable = False

    def __enter__(self) -> LiveView:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closed.set()
        self._thread.join(timeout=10)

    def is_ending(self) -> bool:
        """Whether no more trials are handed out: after a requested stop, or as the last status says."""
        return self.stop_wanted.is_set() or self._ending

    def _watch(self) -> None:
        if not self._console.is_terminal:
            while not self._closed.wait(self._pause):
                self._print_new_lines()
            self._print_new_lines()
            return
        with Live(console=self._console, refresh_per_second=4, transient=True) as live:
            while not self._closed.wait(self._pause):
                if (status := self._poll()) is not None:
                    live.update(status_table(status, self._events[-SHOWN_EVENTS:]))

    def _poll(self) -> Status | None:
        """The present status; None when the keeper does not answer, which is printed once."""
        started = time.monotonic()
        try:
            if self.stop_wanted.is_set() and not self._asked_to_stop:
                self._request_stop()
                self._asked_to_stop = True
            status = self._status(self._num_events)
            if status is not None and status.life != self._life:
                # The keeper was restarted, and counts its events from 0.
                status = self._status(0) if self._num_events else status
                self._num_events = 0
                # It does not know of the requested stop either.
                self._asked_to_stop = self._asked_to_stop and not self._life
        except Exception as error:  # any error of Ray: watching must not end the run
            if not self._is_unreachable and not self._closed.is_set():
                self._console.print(f"the keeper does not answer: {type(error).__name__}", highlight=False)
            self._is_unreachable = True
            return None
        finally:
            pause = (time.monotonic() - started) / MAX_KEEPER_SHARE
            self._pause = max(self._poll_seconds, min(pause, MAX_PAUSE_SECONDS))
        self._is_unreachable = False
        if status is None:
            return None
        self._life, self._ending = status.life, status.ending
        self._num_events += len(status.events)
        self._events += status.events
        return status

    def _print_new_lines(self) -> None:
        seen = len(self._events)
        status = self._poll()
        if status is None:
            return
        for line in self._events[seen:]:
            # soft_wrap: an event is one line of a log, however long.
            self._console.print(
                f"[{status.finished} of {status.target} finished] {line}",
                highlight=False,
                markup=False,
                soft_wrap=True,
            )


def status_table(status: Status, events: list[str]) -> RenderableType:
    """Trials by state, the best so far and the guideline default, speed, and time left."""
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim")
    table.add_column()
    table.add_row("sweep", Text(status.name))
    outcomes = ", ".join(f"{count} {name}" for name, count in sorted(status.outcomes.items()))
    table.add_row(
        "trials",
        f"{status.finished} of {status.target} finished"
        + (f" ({outcomes})" if outcomes else "")
        + f", {status.unfinished} {'running' if status.is_live else 'paused'}"
        + (f", {status.num_put_back} tried again after running out of memory" if status.num_put_back else ""),
    )
    if status.running:
        name = "running" if status.is_live else "paused"
        table.add_row(name, "  ".join(_seat(trial) for trial in status.running))
    if status.base_eval_loss is not None:
        metric = "" if status.base_metric is None else f", {status.metric} {status.base_metric:.4f}"
        table.add_row("untouched base", Text(f"{status.base_eval_loss:.4f} nats per token{metric}"))
    if status.default_loss is not None:
        table.add_row("guideline default", f"{status.default_loss:.4f}")
    if status.best is not None:
        gain = ""
        if status.default_loss is not None and status.best["eval_loss"] < status.default_loss:
            gain = f", {status.default_loss - status.best['eval_loss']:.4f} below the guideline default"
        value = f"{status.best['eval_loss']:.4f}"
        if status.best.get("metric") is not None:
            both = (f"{status.metric} {status.best['metric']:.4f}", f"loss {value}")
            value = ", ".join(both if status.is_objective else both[::-1])
        table.add_row("best so far", f"{value} (trial {status.best['number']}{gain})")
    if status.elapsed_seconds and status.running:
        left = f", about {duration(status.seconds_left)} left" if status.seconds_left else ""
        table.add_row("speed", f"{status.tokens_per_second:,.0f} tokens/s{left}")
    if status.storage_away_seconds:
        table.add_row("storage", f"away for {duration(status.storage_away_seconds)}, waiting for it")
    for path in status.compute_paths:
        table.add_row("computed", Text(f"{path['path']}, on {path['device']}"))
        for text in path["notes"]:
            table.add_row("", Text(text, style="yellow"))
    if status.seat_busy_share is not None:
        table.add_row("seats", f"busy {status.seat_busy_share:.1%} of the time")
    return Group(table, *(Text(line, style="dim", no_wrap=True) for line in events))


def _seat(trial: RunningTrial) -> str:
    loss = "" if trial.eval_loss is None else f" {trial.eval_loss:.3f}"
    return f"#{trial.number} {trial.percent}%{loss}"
