"""Which arms a budget has runs for: those of a present confirmation, else those that decide the most rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from results.allocation.expected import expected_costs
from results.allocation.row_needs import RowNeeds, Wish
from results.comparison.arms import Arm, reference
from results.comparison.constants import DEFAULT_RUNS, MIN_PAIRS, MOST_SEEDS
from results.sweep_result import SweepResult

_BASE = ("best", "guideline_default")
"""Roles that every confirmation runs; the others test rows."""
_USUAL_COMPARISONS = 6
"""Arms beside the best that are expected to share the error rate, before they are chosen."""


def budget_for(arms: Sequence[Arm], runs: int | None, *, hours: float | None, rows: bool) -> int | None:
    """Runs of the whole confirmation: those asked for, else the default where rows are tested.

    None where hours or the most seeds of each arm are the limit.
    """
    if runs is not None or hours is not None or not rows:
        return runs
    return max(DEFAULT_RUNS, MOST_SEEDS * sum(arm.role in _BASE for arm in arms))


def fitting_arms(
    arms: Sequence[Arm], runs: int | None, sweep: SweepResult, *, margin: float
) -> tuple[Arm, ...]:
    """The arms that `runs` are enough for: those expected to decide the most rows for their runs.

    By the sweep's own trials, an arm that costs far more than the margin takes few seeds and one near the
    margin more than any budget has. The best, the guideline default and further best trials always stay, even
    where the runs are too few. None leaves out none, nor does a budget for MOST_SEEDS of all.
    """
    base = [arm.name for arm in arms if arm.role in _BASE]
    if runs is None or runs >= MOST_SEEDS * len(arms) or len(arms) == len(base):
        return tuple(arms)
    seeds = expected_decisions(arms, runs, sweep, margin=margin).seeds
    if len(seeds) == len(base):  # nothing can be decided: what tests the most rows, at few seeds
        return tuple(arms[: max(len(base), runs // (MIN_PAIRS + 1))])
    return tuple(arm for arm in arms if arm.name in seeds)


@dataclass(frozen=True, kw_only=True)
class Decisions:
    """What a confirmation is expected to decide."""

    rows: int
    """Distinct statements of rows, and whether the guideline default is as good as the best."""
    of: int
    seeds: Mapping[str, int]
    """Arm -> the seeds that this takes, those of the best included."""

    @property
    def runs(self) -> int:
        """That it takes."""
        return sum(self.seeds.values())


def expected_decisions(
    arms: Sequence[Arm], runs: int | None, sweep: SweepResult, *, margin: float
) -> Decisions:
    """What so many runs are expected to decide, taking what needs the fewest runs first; None: any number."""
    best = reference(arms).name
    needs = RowNeeds(sweep, expected_costs(sweep, arms), margin=margin)
    wishes = needs.wishes(arms, comparisons=_USUAL_COMPARISONS, may_leave_out=True)
    seeds = {arm.name: MIN_PAIRS for arm in arms if arm.role in _BASE}
    left, rows = [wish for wish in wishes if wish.rows], 0
    while left:
        wish = min(left, key=lambda wish: _more(seeds, wish, best) / wish.rows)
        left.remove(wish)
        after = _with(seeds, wish, best)
        if runs is None or sum(after.values()) <= runs:
            seeds, rows = after, rows + wish.rows
    return Decisions(rows=rows, of=needs.statements + 1, seeds=seeds)


def _with(seeds: Mapping[str, int], wish: Wish, best: str) -> dict[str, int]:
    """The seeds with those of a wish; the best runs on all of them."""
    after = dict(seeds)
    for name, count in wish.seeds.items():
        after[name] = max(after.get(name, 0), count)
    return after | {best: max(after.values())}


def _more(seeds: Mapping[str, int], wish: Wish, best: str) -> int:
    return sum(_with(seeds, wish, best).values()) - sum(seeds.values())


def present_arms(
    arms: Sequence[Arm], stored: Sequence[Mapping[str, Any]] | None, *, rows: bool
) -> tuple[Arm, ...] | None:
    """The arms of a present confirmation, which a larger budget continues; None where it has others.

    They have to be among `arms`, all that would be chosen now, with the same best trials, and to test rows
    just if that is asked for.
    """
    if not stored:
        return None
    by_name = {arm.name: arm for arm in arms}
    kept = []
    for entry in stored:
        arm = by_name.get(str(entry.get("name")))
        if arm is None or dict(arm.values) != dict(entry.get("values") or {}):
            return None
        kept.append(replace(arm, role=entry["role"], rows=tuple(entry.get("rows") or ())))
    best = {arm.name for arm in arms if arm.role in _BASE}
    has_rows = any(arm.role not in _BASE for arm in kept)
    same_best = best == {arm.name for arm in kept if arm.role in _BASE}
    return tuple(kept) if same_best and has_rows == rows else None
