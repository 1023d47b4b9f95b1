"""A process beside a running sweep that brings its trackers up to date every now and then.

A process of its own, so that nothing a tracker does (threads, exit handlers, a server that hangs, a crash)
can reach the sweep. It ends when its input does, which happens however the sweep's process ends.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sweeps.sweep import Sweep

LOG_NAME = "tracking.log"
LAST_PASS_SECONDS = 120.0


@contextlib.contextmanager
def following(
    sweep: Sweep, say: Callable[[str], None], *, last_pass_seconds: float = LAST_PASS_SECONDS
) -> Iterator[None]:
    """While this is open, the trackers that a sweep asks for follow it; nothing of theirs is raised here.

    The run folder holds the sweep's file already. At the end the trackers get a last pass of at most
    `last_pass_seconds`; `say` hears it when that is not enough, or fails.
    """
    if not sweep.config.tracking.to:
        yield
        return
    log = sweep.run_folder / LOG_NAME
    process = None
    try:
        with log.open("ab") as out:
            process = subprocess.Popen(
                [sys.executable, "-m", "sweeps.tracking", str(sweep.run_folder)],
                stdin=subprocess.PIPE,
                stdout=out,
                stderr=out,
                start_new_session=True,  # Ctrl-C in the terminal is for the sweep alone
            )
    except OSError as error:
        say(f"tracking could not start ({error.strerror}); sweeps track {sweep.run_folder} does it later")
    seconds = last_pass_seconds
    try:
        yield
    except KeyboardInterrupt:
        seconds = 0.0  # a second Ctrl-C: end at once
        raise
    finally:
        if process is not None and not _ended_well(process, seconds):
            say(f"tracking is not up to date, see {log}; sweeps track {sweep.run_folder} makes up for it")


def _ended_well(process: subprocess.Popen[bytes], seconds: float) -> bool:
    assert process.stdin is not None
    try:
        with contextlib.suppress(OSError):
            process.stdin.close()
        return process.wait(timeout=seconds) == 0
    except subprocess.TimeoutExpired:
        return False
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


def follow(run_folder: Path, ended: threading.Event) -> bool:
    """Bring the trackers up to date until `ended`, and once more then; whether that last pass succeeded."""
    from sweeps.errors import SweepError
    from sweeps.sweep import Sweep
    from sweeps.tracking.update import track

    last = ""
    while True:
        is_last = ended.is_set()
        seconds, succeeded = 30.0, False
        try:
            sweep = Sweep.load(run_folder, check_files=False)
            seconds = sweep.config.tracking.every_seconds
            done = track(sweep, sweep.config.tracking.to)
            succeeded, said = True, ", ".join(f"{name} {count}" for name, count in done.items())
            said = f"trials brought up to date: {said}" if any(done.values()) else ""
        except SweepError as error:  # the study is not there yet, or a tracker is away
            said = str(error)
        if said and said != last:
            print(f"{datetime.now():%Y-%m-%d %H:%M:%S} {said}", flush=True)
            last = said
        if is_last:
            return succeeded
        ended.wait(seconds)


def main() -> int:
    """Follow the run folder given on the command line until standard input ends; 0 when all is up to date."""
    ended = threading.Event()

    def wait_for_the_end() -> None:
        sys.stdin.buffer.read()
        ended.set()

    threading.Thread(target=wait_for_the_end, daemon=True).start()
    return 0 if follow(Path(sys.argv[1]), ended) else 1
