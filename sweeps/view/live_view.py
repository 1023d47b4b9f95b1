"""Shows a run while it lasts: a live screen in a terminal, otherwise one plain line per change."""

from __future__ import annotations

import contextvars
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from datetime import datetime

from rich.console import Console, Group
from rich.control import Control
from rich.live import Live
from rich.segment import ControlType
from rich.text import Text

from sweeps.console import say
from sweeps.study.stages import Stages
from sweeps.study.status import Status
from sweeps.view.notebook import NotebookScreen
from sweeps.view.phrases import event_text
from sweeps.view.plain_lines import PlainLines
from sweeps.view.screen import SHOWN_EVENTS, Screen, shown_events
from sweeps.view.stopping import stop_text
from sweeps.view.trial_lines import ASCII_BARS, Bars

POLL_SECONDS, MAX_PAUSE_SECONDS = 0.5, 10.0
PAINT_SECONDS = 0.2
MAX_HELD_SECONDS = 60.0
"""Reading large data takes longer: then what is being done is printed before it is known to be good."""
MAX_KEEPER_SHARE = 0.1
"""Share of the keeper's time that polling may take: in a large study a status takes long."""


class LiveView:
    """Shows stages of the driver and, once it follows a keeper, its status, until closed.

    One thread asks the keeper, another draws: what is seen never waits for an answer. The first also passes
    on a requested stop, because a call of Ray from a signal handler could deadlock.
    """

    def __init__(
        self,
        console: Console | None = None,
        *,
        first: Status | None = None,
        stages: Stages | None = None,
        on_status: Callable[[Status], None] = lambda _: None,
        poll_seconds: float = POLL_SECONDS,
    ) -> None:
        """`first` is shown until the keeper answers: what the study holds.

        `stages` are those of the driver. `on_status` receives every status with them.
        """
        self.stop_wanted = threading.Event()
        """Set by a signal: ask the workers to checkpoint and end."""
        self._console = console or Console()
        self._poll_seconds = self._pause = poll_seconds
        self._first = first or Status("", 0)
        self._began = time.monotonic()
        self._lock = threading.Lock()
        self.stages, self._on_status = stages or Stages(), on_status
        self._status: Status | None = None
        self._status_at = self._began
        self._new_events: list[str] = []
        self._last_events: list[str] = []
        self._life, self._num_events = "", 0
        self._asked_to_stop = self._ending = self._is_unreachable = False
        self._wake, self._closed = threading.Event(), threading.Event()
        self._is_checked = threading.Event()
        # In the caller's context: a notebook shows what is drawn under the cell that runs the sweep.
        run = contextvars.copy_context().run
        self._painter = threading.Thread(target=run, args=(self._paint,), name="view", daemon=True)

    def __enter__(self) -> LiveView:
        self._painter.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closed.set()
        self._wake.set()
        self._painter.join(timeout=10)

    @contextmanager
    def follow(
        self, status: Callable[[int], Status | None], request_stop: Callable[[], None]
    ) -> Iterator[None]:
        """Ask a keeper for its status while the block runs, and once more at its end.

        `status(n)` returns the present status with its events from number n on.
        """
        self.input_is_checked()
        self._ending = False  # of the keeper before: a confirmation has two, and its second fleet would end
        over, starting = threading.Event(), ExitStack()
        starting.enter_context(self.stages.stage("starting the workers"))

        def ask() -> None:
            while not over.is_set():
                self._poll(status, request_stop)
                if (seen := self._status) is not None and (seen.running or seen.stages or seen.ending):
                    starting.close()
                self._wait(over)
            self._poll(status, request_stop)

        thread = threading.Thread(target=ask, name="keeper status", daemon=True)
        thread.start()
        try:
            yield
        finally:
            starting.close()
            over.set()
            thread.join(timeout=10)

    def say(self, text: str | Text) -> None:
        """Print a line that stays."""
        say(self._console, text)

    def input_is_checked(self) -> None:
        """From here on lines are printed; those so far were held, as bad input prints its error alone."""
        self._is_checked.set()
        self._wake.set()

    def add_event(self, text: str) -> None:
        """Show something among the last events; without a terminal, as a line."""
        self._add_events([text])
        self._wake.set()

    def since_start(self, status: Status) -> Status:
        """The status with the time since the command began; the keeper was started later."""
        return replace(status, elapsed_seconds=time.monotonic() - self._began)

    def is_ending(self) -> bool:
        """Whether no more trials are handed out: after a requested stop, or as the last status says."""
        return self.stop_wanted.is_set() or self._ending

    # --- the keeper -------------------------------------------------------------------------------

    def _wait(self, over: threading.Event) -> None:
        """Until the next question is due; a stop is passed on at once."""
        until = time.monotonic() + self._pause
        while not over.is_set() and (left := until - time.monotonic()) > 0:
            if self.stop_wanted.is_set() and not self._asked_to_stop:
                return
            over.wait(min(left, PAINT_SECONDS))

    def _poll(self, ask: Callable[[int], Status | None], request_stop: Callable[[], None]) -> None:
        """Take over the present status; that the keeper does not answer is said once."""
        started = time.monotonic()
        try:
            if self.stop_wanted.is_set() and not self._asked_to_stop:
                request_stop()
                self._asked_to_stop = True
            status = ask(self._num_events)
            if status is not None and status.life != self._life:
                # The keeper was restarted, and counts its events from 0.
                status = ask(0) if self._num_events else status
                self._num_events = 0
                # It does not know of the requested stop either.
                self._asked_to_stop = self._asked_to_stop and not self._life
        except Exception as error:  # any error of Ray: watching must not end the run
            if not self._is_unreachable and not self._closed.is_set():
                self._add_events([f"the keeper does not answer: {type(error).__name__}"])
            self._is_unreachable = True
            return
        finally:
            pause = (time.monotonic() - started) / MAX_KEEPER_SHARE
            self._pause = max(self._poll_seconds, min(pause, MAX_PAUSE_SECONDS))
            self._wake.set()
        self._is_unreachable = False
        if status is None:
            return
        self._life, self._ending = status.life, status.ending
        self._num_events += len(status.events)
        self._add_events(status.events, status)
        self._on_status(replace(status, stages=[*self.stages.now(), *status.stages]))

    def _add_events(self, events: list[str], status: Status | None = None) -> None:
        at = f"{datetime.now():%H:%M:%S}"
        with self._lock:
            if status is not None:
                self._status, self._status_at = status, time.monotonic()
            self._new_events += events
            # Two spaces: `shown_events` finds the event behind its time.
            self._last_events += [
                f"{at}  {event_text(event, self._status)}" for event in shown_events(events)
            ]
            del self._last_events[:-SHOWN_EVENTS]

    # --- drawing ----------------------------------------------------------------------------------

    def _paint(self) -> None:
        if self._console.is_terminal or self._console.is_jupyter:
            self._paint_screen()
        else:
            self._print_lines()

    def _print_lines(self) -> None:
        plain = PlainLines()
        said_stop, held = False, list[str]()
        while True:
            is_last = self._closed.is_set()
            self._wake.clear()
            with self._lock:
                status, events, self._new_events = self._status, self._new_events, []
            notice = ""
            if self.stop_wanted.is_set() and not said_stop:
                notice, said_stop = stop_text(status), True
            held += plain.lines(status, events, self.stages.now(), notice, self._first)
            if self._is_checked.is_set() or time.monotonic() - self._began > MAX_HELD_SECONDS:
                for line in held:
                    # One line of a log, however long.
                    say(self._console, line)
                held.clear()
            if is_last:
                return
            self._wake.wait(PAINT_SECONDS)

    def _paint_screen(self) -> None:
        is_utf = (self._console.encoding or "").lower().replace("-", "").startswith("utf")
        screen = Screen(Bars() if is_utf else ASCII_BARS)
        shown, size = list[str](), self._console.size
        live = self._live()
        try:
            is_last = False
            while not is_last:
                is_last = self._closed.is_set()
                self._wake.clear()
                if self._console.size != size:
                    # A terminal breaks the lines that it shows anew: what stood there is cleared with them.
                    size = self._console.size
                    live.stop()
                    self._console.control(Control(ControlType.CLEAR, ControlType.HOME))
                    live, shown = self._live(), []
                lines = self._lines(screen, width=size.width, height=size.height - 1)
                if (text := [line.plain for line in lines]) != shown:
                    shown = text
                    live.update(Group(*lines), refresh=True)
                if not is_last:
                    self._wake.wait(PAINT_SECONDS)
        finally:
            live.stop()

    def _live(self) -> Live | NotebookScreen:
        if self._console.is_jupyter:
            return NotebookScreen(self._console.width)
        live = Live(console=self._console, auto_refresh=False, transient=True, vertical_overflow="crop")
        live.start()
        return live

    def _lines(self, screen: Screen, *, width: int, height: int) -> list[Text]:
        with self._lock:
            status, events, at = self._status or self._first, list(self._last_events), self._status_at
        since = time.monotonic() - at
        left = None if status.seconds_left is None else max(0.0, status.seconds_left - since)
        status = replace(self.since_start(status), seconds_left=left)
        notice = stop_text(status) if self.stop_wanted.is_set() or status.stopping else ""
        stages = self.stages.now()
        return screen.lines(status, width=width, height=height, events=events, stages=stages, notice=notice)
