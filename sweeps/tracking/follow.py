"""A separate process that brings a running sweep's trackers up to date at intervals.

It is a separate process so that nothing a tracker does (threads, exit handlers, a server that hangs, a crash)
can affect the sweep. It ends when its standard input is closed, which happens however the sweep ends.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path

from sweeps.config import SweepConfig, load_sweep
from sweeps.errors import SweepError
from sweeps.tracking.update import track

LOG_NAME = "tracking.log"
LAST_UPDATE_SECONDS = 120.0


@contextlib.contextmanager
def following(
    config: SweepConfig,
    say: Callable[[str], None],
    *,
    stage: Callable[[str], contextlib.AbstractContextManager[object]] = contextlib.nullcontext,
    last_update_seconds: float = LAST_UPDATE_SECONDS,
) -> Iterator[None]:
    """Keep the trackers of `tracking.to` up to date while this is open; their errors are never raised here.

    The sweep file must be in the run folder already. On exit the trackers are updated once more, for at most
    `last_update_seconds`; `say` receives a message when that takes longer or fails, and `stage` shows it.
    """
    if not config.tracking.to:
        yield
        return
    run_folder = config.run_folder
    log = run_folder / LOG_NAME
    process = None
    try:
        with log.open("ab") as out:
            process = subprocess.Popen(
                [sys.executable, "-m", "sweeps.tracking", str(run_folder)],
                stdin=subprocess.PIPE,
                stdout=out,
                stderr=out,
                start_new_session=True,  # Ctrl-C in the terminal is for the sweep alone
            )
    except OSError as error:
        say(f"tracking could not start ({error.strerror}); to update the trackers: sweeps track {run_folder}")
    seconds = last_update_seconds
    try:
        yield
    except KeyboardInterrupt:
        seconds = 0.0  # a second Ctrl-C: end at once
        raise
    finally:
        with stage("bringing the trackers up to date"):
            ended_well = process is None or _ended_well(process, seconds)
        if not ended_well:
            say(f"tracking is not up to date, see {log}; to update the trackers: sweeps track {run_folder}")


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
    """Update the trackers until `ended`, and once more then; returns whether that last update succeeded."""
    last = ""
    while True:
        is_last = ended.is_set()
        seconds, succeeded = 30.0, False
        try:
            config = load_sweep(run_folder, check_files=False)
            seconds = config.tracking.every_seconds
            updated = track(config, config.tracking.to)
            succeeded, message = True, ", ".join(f"{name} {count}" for name, count in updated.items())
            message = f"trials brought up to date: {message}" if any(updated.values()) else ""
        except SweepError as error:  # there is no study yet, or a tracker cannot be reached
            message = str(error)
        if message and message != last:
            print(f"{datetime.now():%Y-%m-%d %H:%M:%S} {message}", flush=True)
            last = message
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
