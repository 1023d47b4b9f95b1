"""What the steps on an H200 took at commit 66ea19e, and what they should take."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.harness.report import Report

LLAMA_8B, LLAMA_1B = "llama-3.1-8b", "llama-3.2-1b"


@dataclass(frozen=True, kw_only=True)
class Goal:
    """One figure that should fall to `most`, or rise to `least`."""

    name: str
    before: float | None
    """At 66ea19e on one H200 with torch 2.11; None where it was not measured."""
    most: float | None = None
    least: float | None = None

    def row(self, found: float | None) -> list[Any]:
        """The row of a table with COLUMNS; None is not measured."""
        before = "-" if self.before is None else self.before
        if self.most is not None:
            goal, reached = f"at most {self.most:g}", found is not None and found <= self.most
        else:
            goal, reached = f"at least {self.least:g}", found is not None and found >= (self.least or 0.0)
        if found is None:
            return [self.name, before, goal, "-", "-"]
        return [self.name, before, goal, found, "yes" if reached else "no"]


COLUMNS = ("", "at 66ea19e", "goal", "found", "reached")
STEP_MS = {
    (LLAMA_8B, 8): Goal(name="step of 8 trials, 8B, ms", before=517.0, most=120.0),
    (LLAMA_8B, 1): Goal(name="step of 1 trial, 8B, ms", before=309.0, most=45.0),
    (LLAMA_1B, 1): Goal(name="step of 1 trial, 1B, ms", before=167.0, most=12.0),
    (LLAMA_1B, 8): Goal(name="step of 8 trials, 1B, ms", before=None, most=25.0),
}
"""By shape and trials; 512 tokens a trial at most, NF4, rank 16."""
IDLE = Goal(name="device idle in the step of 8 trials, 8B, %", before=76.0, most=5.0)
"""Under the profiler."""
TO_ONE = Goal(name="trials an hour, times one process at a time", before=20.0, least=60.0)
TO_BEST = Goal(name="trials an hour, times the best number of processes", before=4.0, least=10.0)


def goal_table(report: Report, rows: Sequence[tuple[Goal, float | None]]) -> None:
    """Add the table of goals beside what was found, or replace it."""
    report.table("Goals on an H200", COLUMNS, [goal.row(found) for goal, found in rows])
