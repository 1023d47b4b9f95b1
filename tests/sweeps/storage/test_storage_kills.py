"""Writers killed during their transactions leave whole transactions, and none is missing."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("kill_writers.py")


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["sqlite", "journal"])
def test_a_killed_writer_leaves_whole_transactions(kind: str, new_url: Callable[..., str]) -> None:
    url, kills = new_url(), int(os.environ.get("KILLS", "15"))
    command = [sys.executable, str(SCRIPT), url, str(kills), os.environ.get("SEED", "0")]
    # Long enough for several transactions: SQLite flushes more often.
    command.append("0.3" if kind == "sqlite" else "0.08")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(command, capture_output=True, text=True, timeout=60 + 5 * kills, env=environment)
    assert done.returncode == 0, done.stderr
    said = dict(line.split(": ") for line in done.stdout.splitlines())
    assert int(said["kills"]) == kills
    assert int(said["transactions"]) > kills // 2
