"""The orchestration benchmark runs on real Ray and prints its figures."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FIGURES = (
    "empty_trial_seconds",
    "peer_empty_trial_seconds",
    "empty_trial_time_ratio",
    "time_to_first_trial_ratio",
)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_the_quick_benchmark_prints_its_figures() -> None:
    # Under a minute on two idle cores; the limit is for cores that others use, too.
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.orchestration", "--quick"],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    figures = dict(line.split(": ") for line in done.stdout.splitlines()[-len(FIGURES) :])
    assert tuple(figures) == FIGURES
    assert all(math.isfinite(float(value)) and float(value) > 0 for value in figures.values())
