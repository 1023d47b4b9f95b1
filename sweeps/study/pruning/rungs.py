"""The reports at which a pruner may stop trials: never before the longest warmup has had time to pay off.

A trial that warms up, or has just done so, is behind those of shorter warmup that it overtakes later. So no
trial is stopped before twice the longest warmup of the space.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from search_spaces import SearchSpace

TIMES_WARMUP = 2
_WARMUP, _BATCH = "warmup_ratio", "per_device_train_batch_size"


def longest_warmup(space: SearchSpace, constants: Mapping[str, Any]) -> float:
    """The largest share (0..1) of its steps that a trial of the space may warm up, in whole steps."""
    if _WARMUP not in space:
        return 0.0
    ratio = max(space[_WARMUP].ends())
    batch = int(constants.get(_BATCH, 1))
    sizes = [int(size) for size in space[_BATCH].ends()] if _BATCH in space else [batch]
    budgets: list[int] = [max(1, round(constants["max_steps"] * batch / size)) for size in sizes]
    # As `trial_config` does: whole steps, rounded up.
    return max((min(steps, math.ceil(ratio * steps)) / steps for steps in budgets), default=0.0)


def first_pruning_percent(space: SearchSpace, constants: Mapping[str, Any]) -> int:
    """The percent of the budget from which trials may be compared; 100 when there is no such report."""
    # Not ceil alone: 2 * 0.07 * 100 is a hair above 14.
    return min(100, math.ceil(round(100 * TIMES_WARMUP * longest_warmup(space, constants), 6)))


def pruning_percents(search: Mapping[str, Any], report_at: Sequence[int], earliest: int) -> tuple[int, ...]:
    """The reports before the end at which the pruner may stop a trial, rising; () where none can be."""
    first = first_rung(search, report_at, earliest)
    if search["pruner"] == "none":
        return ()
    if search["pruner"] in ("median", "freeze_thaw"):
        return tuple(percent for percent in report_at[:-1] if percent >= first)
    factor = int(search["pruner_options"].get("reduction_factor", 2))
    rungs = _powers(first, factor)
    # A trial is stopped by the first report at or behind the rung.
    at = {next(percent for percent in report_at if percent >= rung) for rung in rungs}
    return tuple(sorted(at - {report_at[-1]}))


def first_rung(search: Mapping[str, Any], report_at: Sequence[int], earliest: int) -> int:
    """The percent from which the pruner decides: the user's, else the first report from `earliest` on."""
    options = search["pruner_options"]
    own = default_rung(report_at, earliest)
    if search["pruner"] == "median":
        return int(options.get("n_warmup_steps", own))
    given = options.get("min_resource", own)
    first = given if isinstance(given, int) else 1  # "auto": a hundredth of a full budget
    factor, early = (
        int(options.get(k, d)) for k, d in (("reduction_factor", 2), ("min_early_stopping_rate", 0))
    )
    return int(first * factor**early)


def default_rung(report_at: Sequence[int], earliest: int) -> int:
    """The first report that is not before `earliest`."""
    return next(percent for percent in report_at if percent >= earliest)


def early_rung_warning(search: Mapping[str, Any], report_at: Sequence[int], earliest: int) -> str | None:
    """Why the user's own first rung may stop the trial that would have won; None where it may not."""
    stopped = pruning_percents(search, report_at, earliest)
    if not stopped or stopped[0] >= earliest:
        return None
    name = "n_warmup_steps" if search["pruner"] == "median" else "min_resource"
    value = search["pruner_options"].get(name, "auto")
    return (
        f"search.pruner_options.{name} {value} stops trials at {stopped[0]}%; below {earliest}%, twice the "
        "longest warmup of the space, a trial with a long warmup is stopped although it may end best"
    )


def nothing_pruned_reason(search: Mapping[str, Any], report_at: Sequence[int], earliest: int) -> str | None:
    """Why a pruner stops no trial although reports come before the end; else None."""
    is_off = search["pruner"] == "none" or len(report_at) == 1
    if is_off or pruning_percents(search, report_at, earliest):
        return None
    if first_rung(search, report_at, earliest) < earliest or earliest <= report_at[-2]:
        return f"{search['pruner']} has no rung before the end"
    return f"no report comes from {earliest}%, twice the longest warmup of the space, to the end"


def _powers(first: int, factor: int) -> Iterator[int]:
    rung = max(1, first)
    while rung <= 100:
        yield rung
        rung *= factor
