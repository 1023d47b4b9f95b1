"""A process that hangs is ended and its stack kept; one that works is left alone."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from sweeps.fleet.watchdog import Watchdog


@pytest.fixture(autouse=True)
def own_temporary_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))


def run(tmp_path: Path, body: str) -> subprocess.CompletedProcess[str]:
    code = f"import tempfile, time\ntempfile.tempdir = {str(tmp_path)!r}\n"
    code += "from sweeps.fleet.watchdog import Watchdog\nwatch = Watchdog('w', 0.5)\n" + body
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)


def test_a_hang_ends_the_process_and_its_next_life_says_where(tmp_path: Path) -> None:
    # Inside C code that never gives the interpreter's lock back: no thread of Python's could act.
    body = "import re\ndef stuck():\n    re.match(r'(a+)+$', 'a' * 60 + 'b')\nwith watch:\n    stuck()\n"
    started = time.monotonic()
    assert run(tmp_path, body).returncode == 1
    assert time.monotonic() - started < 30
    words = Watchdog("w", 0.5).pop_stall()
    assert words is not None
    assert words.startswith("no progress for 0.5 s, it hung at File ")
    assert "last" not in words
    assert Watchdog("w", 0.5).pop_stall() is None, "it is told once"


def test_work_that_says_it_is_alive_may_take_its_time(tmp_path: Path) -> None:
    body = "with watch:\n    for _ in range(12):\n        time.sleep(0.1)\n        watch.alive()\n"
    body += "time.sleep(1)\nwatch.close()\nprint('done')"
    done = run(tmp_path, body)
    assert (done.returncode, done.stdout.strip()) == (0, "done")
    assert Watchdog("w", 0.5).pop_stall() is None
    assert list(tmp_path.iterdir()) == []


def test_a_process_that_was_killed_otherwise_has_no_last_words(tmp_path: Path) -> None:
    run(tmp_path, "import os\nwith watch:\n    os.kill(os.getpid(), 9)\n")
    assert Watchdog("w", 0.5).pop_stall() is None


def test_outside_of_its_block_nothing_is_watched(tmp_path: Path) -> None:
    done = run(
        tmp_path,
        "with watch:\n    with watch:\n        pass\n    watch.alive()\nwatch.alive()\ntime.sleep(1)\n",
    )
    assert done.returncode == 0
