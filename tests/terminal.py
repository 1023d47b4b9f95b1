"""A command in a terminal of a given size: what a person sees, with colours and cursor movements."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import signal
import struct
import subprocess
import termios
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyte


@dataclass(frozen=True)
class Seen:
    """What a terminal showed."""

    lines: list[str]
    """Everything that was printed, scrolled-out lines first, without trailing spaces."""
    code: int

    @property
    def text(self) -> str:
        return "\n".join(self.lines)


def in_terminal(
    command: Sequence[str],
    *,
    columns: int = 80,
    rows: int = 24,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    seconds: float = 120,
    on_screen: Callable[[list[str], subprocess.Popen[bytes]], None] | None = None,
    on_buffer: Callable[[pyte.Screen], None] | None = None,
) -> Seen:
    """Run a command to its end in a terminal; `on_screen(lines, process)` sees each new screen, `on_buffer`
    the same with colors.

    Raises TimeoutError, and ends the command, when it takes longer than `seconds`.
    """
    screen = pyte.HistoryScreen(columns, rows, history=10_000, ratio=1.0)
    stream = pyte.ByteStream(screen)
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
    kept = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES", "NO_COLOR")}
    process = subprocess.Popen(
        command,
        stdin=slave,
        stdout=slave,
        stderr=slave,
        cwd=cwd,
        env=kept | {"TERM": "xterm-256color"} | dict(env or {}),
        start_new_session=True,
    )
    os.close(slave)
    deadline = time.monotonic() + seconds
    try:
        while True:
            if time.monotonic() > deadline:
                process.send_signal(signal.SIGTERM)
                raise TimeoutError(f"{command} took longer than {seconds:g} s; it showed:\n{_text(screen)}")
            ready, _, _ = select.select([master], [], [], 0.2)
            if ready:
                try:
                    received = os.read(master, 65536)
                except OSError:  # Linux: the other end is closed
                    break
                if not received:
                    break
                stream.feed(received)
                if on_screen is not None:
                    on_screen([line.rstrip() for line in screen.display], process)
                if on_buffer is not None:
                    on_buffer(screen)
        return Seen(_text(screen).splitlines(), process.wait(timeout=30))
    finally:
        os.close(master)
        if process.poll() is None:
            process.kill()
            process.wait()


def _text(screen: pyte.HistoryScreen) -> str:
    above = [
        "".join(line[column].data for column in range(screen.columns)).rstrip() for line in screen.history.top
    ]
    return "\n".join([*above, *(line.rstrip() for line in screen.display)]).rstrip()
