"""What a sweep is called and how long its trials are, where nobody says so; imports no torch."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from search_spaces import Guidelines
from sweeps.config.paths import DATA_SUFFIXES, absolute

USUAL_STEPS = 500


def usual_steps(tables: Guidelines, scenario: str) -> int:
    """500 optimizer steps, or the nearest number that the scenario's row is about."""
    low, high = scenario_steps(tables, scenario)
    steps = max(USUAL_STEPS, low or 0)
    return steps if high is None else min(steps, high)


def scenario_steps(tables: Guidelines, scenario: str) -> tuple[int | None, int | None]:
    """The fewest and the most steps of runs that a scenario's row is about."""
    rows = [row for row in tables.values() if row.topic == "scenario" and row.when.scenario == scenario]
    lows: Sequence[int] = [row.when.max_steps_low for row in rows if row.when.max_steps_low]
    highs: Sequence[int] = [row.when.max_steps_high for row in rows if row.when.max_steps_high]
    return max(lows, default=None), min(highs, default=None)


def default_name(model: str, train: str = "") -> str:
    """`llama-3.1-8b-on-train`: model and data, as a folder may be named; the model alone without `train`."""
    base = _slug(Path(absolute(model, Path.cwd())).name)
    if not train:
        return base[:80].strip(".-")
    data = train.partition(":")[0] if "://" not in train else train
    stem = Path(data).name
    for suffix in DATA_SUFFIXES:
        stem = stem.removesuffix(suffix)
    on = _slug(stem)
    return f"{base[: 76 - min(len(on), 40)]}-on-{on[:40]}".strip(".-")


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9.]+", "-", text.lower()).strip(".-") or "sweep"
