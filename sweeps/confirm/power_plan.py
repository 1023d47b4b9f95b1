"""What a confirmation would run and what it could see, before anything runs: `sweeps confirm --plan`."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from files_and_text.numbers import plural
from files_and_text.plain_values import plain
from results.comparison.arms import Arm
from results.comparison.constants import ASSUMED_NOISE
from results.comparison.power import POWER, seeds_needed, smallest_effect
from results.sweep_result import SweepResult
from results.verdict.arm_comparisons import ArmComparisons
from results.verdict.decide import SEPARATE_RATE_ROWS
from results.verdict.measure import measure
from search_spaces import GuidelineRow
from sweeps.confirm.arms import choose_arms, measured_rows
from sweeps.confirm.one_rate import as_arm, rates_to_try
from sweeps.confirm.request import ConfirmRequest
from sweeps.confirm.study_specs import Stored, confirm_study_spec, tuning_study_spec
from sweeps.plan.specs import StudySpec

NEEDED_EFFECT = 0.01
"""The effect whose runs are named, a share of the loss."""


@dataclass(frozen=True, kw_only=True)
class RowPlan:
    """Rows that say one thing, and what could decide them."""

    says: str
    """`learning_rate 2e-4`."""
    rows: tuple[str, ...]
    arms: tuple[str, ...]
    """Names of the arms that test them; none where nothing does."""
    sees: float | None
    """The smallest effect, a share of the loss, that is seen with probability POWER; None without an arm."""


@dataclass(frozen=True, kw_only=True)
class PowerPlan:
    """The arms, the budget and its power; losses and effects are shares of the best's loss."""

    best: int
    """The trial."""
    arms: tuple[str, ...]
    left_out: tuple[str, ...]
    """Arms that the budget has no runs for."""
    seeds: int
    """Of each arm, by which the thresholds are made."""
    runs: int
    """At most, those that tune one rate included; arms that are decided earlier need fewer."""
    tuning_runs: int
    margin: float
    noise: float
    """Standard deviation of one run, its seed accounted for."""
    noise_from: str
    """Where it was measured: `seeds` run again, or `assumed`."""
    sees: float
    """The smallest effect that is seen with probability POWER at one arm."""
    seeds_for_one_percent: int | None
    """None where even the largest design does not see it."""
    runs_for_one_percent: int | None
    rows: tuple[RowPlan, ...]

    def to_dict(self) -> dict[str, Any]:
        """As `--json` prints it."""
        found: dict[str, Any] = plain(asdict(self) | {"power": POWER})
        return found


def power_plan(
    study_spec: StudySpec,
    sweep: SweepResult,
    request: ConfirmRequest,
    *,
    stored: Stored = None,
    known: ArmComparisons | None = None,
) -> PowerPlan:
    """The plan of a confirmation; `known` are earlier runs on new seeds, which measured the noise.

    Raises what starting it would raise.
    """
    tuning = tuning_study_spec(study_spec, sweep, request, stored)
    num_tuned = 0 if tuning is None else tuning.trials
    candidates = rates_to_try(sweep) if request.rows else ()
    one_rate = as_arm(candidates[0]) if candidates else None
    spec = confirm_study_spec(
        study_spec, sweep, request, one_rate if tuning is not None else None, num_tuned, stored
    )
    plan = spec.replicates
    assert plan is not None
    assert sweep.best is not None
    every = choose_arms(sweep, study_spec, best=request.best, rows=request.rows, one_rate=one_rate)
    kept = {arm.name for arm in plan.arms}
    measured = 0.0 if known is None else _share_of_noise(known)
    noise = measured or ASSUMED_NOISE
    comparisons = len(plan.arms) - 1
    needed = seeds_needed(NEEDED_EFFECT, noise=noise, comparisons=comparisons, margin=request.margin)

    def sees(wanted: float = POWER) -> float:
        return smallest_effect(
            noise=noise, comparisons=comparisons, seeds=plan.most_seeds, margin=request.margin, wanted=wanted
        )

    return PowerPlan(
        best=sweep.best.number,
        arms=tuple(arm.name for arm in plan.arms),
        left_out=tuple(arm.name for arm in every if arm.name not in kept),
        seeds=plan.most_seeds,
        runs=plan.size + num_tuned,
        tuning_runs=num_tuned,
        margin=request.margin,
        noise=noise,
        noise_from="seeds" if measured else "assumed",
        sees=sees(),
        seeds_for_one_percent=needed,
        runs_for_one_percent=None if needed is None else needed * len(plan.arms) + num_tuned,
        rows=_row_plans(sweep, plan.arms, sees) if request.rows else (),
    )


def plan_lines(plan: PowerPlan) -> list[str]:
    """The plan for a terminal of 80 columns."""
    tuned = f", {plan.tuning_runs} to tune one rate" if plan.tuning_runs else ""
    others = plural(len(plan.arms) - 1, "other")
    measured = (
        "measured on new seeds" if plan.noise_from == "seeds" else "assumed, as no seed was run twice yet"
    )
    lines = [
        f"Runs    at most {plan.runs}: trial {plan.best} and {others} on {plan.seeds} seeds{tuned}",
        f"Noise   {_percent(plan.noise)} of the loss a run ({measured})",
        f"Sees    with {POWER:.0%}: what costs {_percent(plan.sees)} or more; margin {100 * plan.margin:g}%",
        f"        {_for_one_percent(plan)}",
    ]
    if plan.rows:
        lines += ["", _row_line("tables say", "rows", "tested by", "sees")]
        lines += [
            _row_line(
                row.says,
                str(len(row.rows)),
                ", ".join(_short_name(name, row.says) for name in row.arms) or "nothing",
                "" if row.sees is None else _percent(row.sees),
            )
            for row in plan.rows
        ]
    if plan.left_out:
        said = f"Left out, as --trials is too small: {', '.join(plan.left_out)}"
        lines += ["", *textwrap.wrap(said, 80, subsequent_indent="  ", break_on_hyphens=False)]
    return lines


def _percent(share: float) -> str:
    """`0.93%`."""
    return f"{100 * share:.2f}%"


def _short_name(arm: str, says: str) -> str:
    """An arm of the row's own hyperparameter by its value alone."""
    return "its value" if arm == says else arm.removeprefix(f"{says.partition(' ')[0]} ")


def _for_one_percent(plan: PowerPlan) -> str:
    if plan.seeds_for_one_percent is None:
        return "1% is not seen by any number of seeds up to 32"
    return f"1% needs {plan.seeds_for_one_percent} seeds: at most {plan.runs_for_one_percent} runs"


def _row_line(says: str, rows: str, tested_by: str, sees: str) -> str:
    return f"{says:<32.32}  {rows:>4}  {tested_by:<31.31}  {sees:>6}".rstrip()


def _row_plans(
    sweep: SweepResult, arms: Sequence[Arm], sees: Callable[[float], float]
) -> tuple[RowPlan, ...]:
    """Rows of one value together, those that nothing tests last."""
    groups: dict[str, list[GuidelineRow]] = {}
    separate = [
        row for row in sweep.guidelines if row.id in SEPARATE_RATE_ROWS and measure(row, sweep).applies
    ]
    for row in [*(row for row in measured_rows(sweep) if row not in separate), *separate]:
        says = (
            f"{row.parameter} {row.value_text}" if row not in separate else "embeddings: a rate of their own"
        )
        groups.setdefault(says, []).append(row)
    found = []
    for says, rows in groups.items():
        ids = {row.id for row in rows}
        testing = [arm for arm in arms if ids & set(arm.rows) and arm.role != "guideline_default"]
        # A row is refuted only when its own value and the retuned one are both seen to cost more.
        needed = sum(arm.role != "contrast" for arm in testing) or 1
        found.append(
            RowPlan(
                says=says,
                rows=tuple(row.id for row in rows),
                arms=tuple(arm.name for arm in testing),
                sees=sees(POWER ** (1 / needed)) if testing else None,
            )
        )
    return tuple(sorted(found, key=lambda row: (row.sees is None, -len(row.rows))))


def _share_of_noise(known: ArmComparisons) -> float:
    loss = known.arms[0].mean
    found = known.run_noise / abs(loss) if loss else 0.0
    return found if math.isfinite(found) else 0.0
