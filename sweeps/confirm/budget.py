"""Which arms a budget has runs for: those of a present confirmation, else the most telling ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from results.comparison.arms import Arm
from results.comparison.constants import MIN_PAIRS

_BASE = ("best", "guideline_default")
"""Roles that every confirmation runs; the others test rows."""
SEEDS_WITH_ROWS = 4
"""Seeds that each arm has on average before an arm is left out: with three, only large effects are seen."""


def fitting_arms(arms: Sequence[Arm], runs: int | None) -> tuple[Arm, ...]:
    """The arms that `runs` are enough for, the first ones; None leaves out none.

    The best, the guideline default and further best trials always stay, even where the runs are too few.
    """
    base = sum(arm.role in _BASE for arm in arms)
    if runs is None or runs // len(arms) >= SEEDS_WITH_ROWS:
        return tuple(arms)
    most = runs // SEEDS_WITH_ROWS
    if most <= base:
        most = runs // MIN_PAIRS
    return tuple(arms[: max(base, most)])


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
