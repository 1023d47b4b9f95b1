"""What a confirmation would run and what it could see, before anything runs: `sweeps confirm --plan`."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from typing import Any

import optuna

from files_and_text.numbers import plural
from files_and_text.plain_values import plain
from results.answer.run_facts import read_run_facts, seconds_of
from results.comparison.arms import Arm
from results.comparison.constants import ASSUMED_NOISE, MIN_PAIRS, MOST_SEEDS
from results.comparison.power import MOST_SEEDS_NEEDED, POWER, seeds_needed, smallest_effect
from results.sweep_result import SweepResult
from results.text.values import about
from results.verdict.arm_comparisons import ArmComparisons
from results.verdict.decide import SEPARATE_RATE_ROWS
from results.verdict.measure import measure
from search_spaces import GuidelineRow
from sweeps.confirm.arms import choose_arms, measured_rows
from sweeps.confirm.one_rate import as_arm, rates_to_try
from sweeps.confirm.request import ConfirmRequest
from sweeps.confirm.study_specs import (
    Stored,
    check_same_arms,
    confirm_study_spec,
    seeds_of_design,
    tuning_study_spec,
)
from sweeps.plan.replicate_plan import ReplicatePlan
from sweeps.plan.specs import StudySpec

NEEDED_EFFECT = 0.01
"""The effect whose runs are named, a share of the loss."""
NOISY = 0.01
"""Noise of small models and short runs, a share of the loss: shown beside one that is only assumed."""


@dataclass(frozen=True, kw_only=True)
class RowPlan:
    """Rows that say one thing, and what could decide them."""

    says: str
    """`learning_rate 2e-4`."""
    rows: tuple[str, ...]
    arms: tuple[str, ...]
    """Names of the arms that test them; none where nothing does."""
    sees: float | None
    """The smallest effect, a share of the loss, that is seen with probability POWER at `seeds_each`; None
    without an arm, and where the hours are over before an arm has the seeds that an interval needs."""
    sees_if_noisy: float | None
    """The same if the noise is NOISY; None where it was measured."""


@dataclass(frozen=True, kw_only=True)
class PowerPlan:
    """The arms, the budget and its power; losses and effects are shares of the best's loss."""

    best: int
    """The trial."""
    arms: tuple[str, ...]
    left_out: tuple[str, ...]
    """Arms that the budget has no runs for."""
    seeds: int
    """Of an arm, for which the thresholds are made; those of the first plan where a confirmation goes on."""
    seeds_each: int
    """Of each arm, where all share the runs evenly: the figures below are for these."""
    runs: int
    """At most, those that tune one rate included; arms that are decided earlier need fewer."""
    done: int
    """Of these, runs that were made before."""
    seconds: float | None
    """About how long those that are left take, at most the hours given; None where no trial tells."""
    hours: float | None
    """The budget in hours."""
    runs_in_hours: int | None
    """Runs that start within the hours; None without hours, and where no trial tells how long a run takes."""
    tuning_runs: int
    margin: float
    noise: float
    """Standard deviation of one run, its seed accounted for."""
    noise_from: str
    """Where it was measured: `seeds` run again, or `assumed`."""
    sees: float | None
    """The smallest effect that is seen with probability POWER in any one arm; None as in the rows."""
    sees_if_noisy: float | None
    """The same if the noise is NOISY; None where it was measured."""
    arms_for_one_percent: int
    """Those of the plan, and those that are left out where a larger budget would run them."""
    seeds_for_one_percent: int | None
    """Of each of these; None where even the largest design does not see it."""
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
    present: optuna.Study | None = None,
    known: ArmComparisons | None = None,
) -> PowerPlan:
    """The plan of a confirmation that begins, or goes on with `present`; `known` are earlier runs on new
    seeds, which measured the noise.

    Raises what starting it would raise.
    """
    stored: Stored = None if present is None else present.user_attrs.get("arms")
    tuning = tuning_study_spec(study_spec, sweep, request, stored)
    num_tuned = 0 if tuning is None else tuning.trials
    candidates = rates_to_try(sweep) if request.rows else ()
    one_rate = _one_rate(candidates, stored)
    spec = confirm_study_spec(
        study_spec, sweep, request, one_rate if tuning is not None else None, num_tuned, stored
    )
    check_same_arms(present, spec)
    plan = spec.replicates
    assert plan is not None
    assert sweep.best is not None
    every = choose_arms(sweep, study_spec, best=request.best, rows=request.rows, one_rate=one_rate)
    kept = {arm.name for arm in plan.arms}
    measured = 0.0 if known is None else _share_of_noise(known)
    noise = measured or ASSUMED_NOISE
    comparisons = len(plan.arms) - 1
    # A study keeps the thresholds of its first plan.
    most_seeds = plan.most_seeds
    if present is not None and stored:
        most_seeds = int(present.user_attrs.get("most_seeds", MOST_SEEDS))
    many, needed, runs_needed = _for_effect(
        NEEDED_EFFECT,
        noise,
        plan.arms if stored else every,
        request,
        num_rates=len(candidates),
        most_seeds=most_seeds if stored or request.hours is not None else None,
    )
    size = plan.size + num_tuned
    done = _done(plan, known, stored, num_tuned)
    facts = read_run_facts(sweep, run_folder="")
    seconds, in_hours = seconds_of(facts, max(0, size - done)), None
    seeds = plan.size // len(plan.arms)
    if request.hours is not None and seconds is not None and facts.trial_seconds:
        limit = 3600 * request.hours
        in_hours = min(size - done, math.ceil(limit / facts.trial_seconds) * facts.seats)
        seconds = min(seconds, limit)
        seeds = min(seeds, max(0, done + in_hours - num_tuned) // len(plan.arms))

    @cache
    def sees(noise: float, wanted: float = POWER) -> float | None:
        if seeds < MIN_PAIRS:
            return None
        return smallest_effect(
            noise=noise,
            comparisons=comparisons,
            seeds=seeds,
            most_seeds=most_seeds,
            margin=request.margin,
            wanted=wanted,
        )

    return PowerPlan(
        best=sweep.best.number,
        arms=tuple(arm.name for arm in plan.arms),
        left_out=tuple(arm.name for arm in every if arm.name not in kept),
        seeds=most_seeds,
        seeds_each=seeds,
        runs=size,
        done=done,
        seconds=seconds,
        hours=request.hours,
        runs_in_hours=in_hours,
        tuning_runs=num_tuned,
        margin=request.margin,
        noise=noise,
        noise_from="seeds" if measured else "assumed",
        sees=sees(noise),
        sees_if_noisy=None if measured else sees(NOISY),
        arms_for_one_percent=many,
        seeds_for_one_percent=needed,
        runs_for_one_percent=runs_needed,
        rows=_row_plans(sweep, plan.arms, sees, noise, is_measured=bool(measured)) if request.rows else (),
    )


def plan_lines(plan: PowerPlan) -> list[str]:
    """The plan for a terminal of 80 columns."""
    lines = [
        *_labelled("Runs", _runs(plan)),
        *_labelled("Noise", _noise(plan)),
        *_labelled("Sees", f"{_sees(plan)}; {_for_one_percent(plan)}"),
    ]
    if plan.rows:
        lines += ["", _row_line("tables say", "rows", "tested by", "sees")]
        lines += [
            _row_line(
                row.says,
                str(len(row.rows)),
                ", ".join(_short_name(name, row.says) for name in row.arms),
                _range(row.sees, row.sees_if_noisy),
            )
            for row in plan.rows
            if row.arms
        ]
        if untested := [row.says for row in plan.rows if not row.arms]:
            lines += _wrapped(f"Nothing here tests {', '.join(untested)}.")
    if plan.left_out:
        left_out = ", ".join(plan.left_out)
        lines += [*_wrapped(f"Left out by the budget: {left_out}; more runs may add these first.")]
    return lines


def _wrapped(text: str) -> list[str]:
    return textwrap.wrap(text, 80, subsequent_indent="  ", break_on_hyphens=False)


def _labelled(label: str, text: str) -> list[str]:
    return textwrap.wrap(
        f"{label:<7} {text}.", 80, subsequent_indent=" " * 8, break_on_hyphens=False, break_long_words=False
    )


def _runs(plan: PowerPlan) -> str:
    most = f"at most {plan.runs}"
    if plan.done:
        most += f", {plan.done} of them made before"
    if plan.runs_in_hours is not None and plan.runs_in_hours < plan.runs:
        most = f"about {plan.runs_in_hours} in {plan.hours:g} h, of {most}"
    elif plan.seconds:
        most += f", {about(plan.seconds)}"
    if plan.hours is not None and plan.runs_in_hours is None:
        most += f", unless {plan.hours:g} h end it earlier"
    others = plural(len(plan.arms) - 1, "other")
    then = "; others then get its runs" if len(plan.arms) > 2 else ""
    tuned = f"{plan.tuning_runs} to tune one rate, then " if plan.tuning_runs else ""
    return f"{most}: {tuned}trial {plan.best} and {others} on new seeds, each until it is decided{then}"


def _noise(plan: PowerPlan) -> str:
    shown = f"{_percent(plan.noise)} of the loss a run"
    if plan.noise_from == "seeds":
        return f"{shown}, measured on new seeds"
    return (
        f"{shown}: an assumption, until new seeds measure what is then used; short runs and small models "
        f"have {100 * NOISY:g}% and more"
    )


def _sees(plan: PowerPlan) -> str:
    if plan.sees is None:
        least = MIN_PAIRS * len(plan.arms) + plan.tuning_runs
        return f"nothing: an interval needs {MIN_PAIRS} seeds of each, {least} runs"
    noisy = (
        "" if plan.sees_if_noisy is None else f", {_percent(plan.sees_if_noisy)} at {100 * NOISY:g}% noise"
    )
    share = f"{plan.seeds_each} seeds each{', an even share' if len(plan.arms) > 2 else ''}"
    return (
        f"with {POWER:.0%} what costs {_percent(plan.sees)}{noisy} ({share}); margin {100 * plan.margin:g}%"
    )


def _percent(share: float) -> str:
    """`0.93%`, `4.2%`."""
    return f"{100 * share:.{2 if share < 0.01 else 1}f}%"


def _range(low: float | None, high: float | None) -> str:
    """`0.93 to 4.2%`."""
    if low is None:
        return ""
    return _percent(low) if high is None else f"{_percent(low).removesuffix('%')} to {_percent(high)}"


def _short_name(arm: str, says: str) -> str:
    """An arm of the row's own hyperparameter by its value alone."""
    return "its value" if arm == says else arm.removeprefix(f"{says.partition(' ')[0]} ")


def _for_one_percent(plan: PowerPlan) -> str:
    if plan.seeds_for_one_percent is None:
        return f"1% is not seen by any number of seeds up to {MOST_SEEDS_NEEDED}"
    of = "each"
    if plan.arms_for_one_percent > len(plan.arms):
        of = f"of all {plan.arms_for_one_percent}"
    return f"1% needs {plan.seeds_for_one_percent} seeds {of}, at most {plan.runs_for_one_percent} runs"


def _for_effect(
    effect: float,
    noise: float,
    arms: Sequence[Arm],
    request: ConfirmRequest,
    *,
    num_rates: int,
    most_seeds: int | None,
) -> tuple[int, int | None, int | None]:
    """The number of arms, the seeds of each that see the effect, and the runs of all; thresholds for
    `most_seeds`, or for what that budget would have them made."""
    seeds = seeds_needed(
        effect,
        noise=noise,
        comparisons=len(arms) - 1,
        design=lambda each: most_seeds or seeds_of_design(each, rows=request.rows),
        margin=request.margin,
    )
    tuned = num_rates if any(arm.role == "one_rate" for arm in arms) else 0
    return len(arms), seeds, None if seeds is None else seeds * len(arms) + tuned


def _row_line(says: str, rows: str, tested_by: str, sees: str) -> str:
    return f"{says:<32.32}  {rows:>4}  {tested_by:<25.25}  {sees:>13}".rstrip()


def _row_plans(
    sweep: SweepResult,
    arms: Sequence[Arm],
    sees: Callable[[float, float], float | None],
    noise: float,
    *,
    is_measured: bool,
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
        wanted = POWER ** (1 / (sum(arm.role != "contrast" for arm in testing) or 1))
        found.append(
            RowPlan(
                says=says,
                rows=tuple(row.id for row in rows),
                arms=tuple(arm.name for arm in testing),
                sees=sees(noise, wanted) if testing else None,
                sees_if_noisy=sees(NOISY, wanted) if testing and not is_measured else None,
            )
        )
    return tuple(sorted(found, key=lambda row: (not row.arms, -len(row.rows))))


def _one_rate(candidates: Sequence[Arm], stored: Stored) -> Arm | None:
    """The rate that was tuned already, else any of those to try: the plan does not depend on which."""
    tuned = {str(arm.get("name")) for arm in stored or () if arm.get("role") == "one_rate"}
    found = [arm for arm in candidates if arm.name in tuned] or candidates
    return as_arm(found[0]) if found else None


def _done(plan: ReplicatePlan, known: ArmComparisons | None, stored: Stored, num_tuned: int) -> int:
    """Runs that were made before; one rate is tuned before the first run of a confirmation."""
    if known is None or not stored:
        return len(plan.known)
    has_tuned = any(arm.get("role") == "one_rate" for arm in stored)
    return sum(arm.runs for arm in known.arms) + (num_tuned if has_tuned else 0)


def _share_of_noise(known: ArmComparisons) -> float:
    loss = known.arms[0].mean
    found = known.run_noise / abs(loss) if loss else 0.0
    return found if math.isfinite(found) else 0.0
