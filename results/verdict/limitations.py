"""The limitations of a verdict as codes with their numbers; `results.text` has the sentence of each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from results.comparison.constants import MIN_PAIRS
from results.comparison.relation import relation
from results.effects.untried_side import untried_side
from results.sweep_result import SweepResult, TrialResult
from results.verdict.arm_comparisons import ArmComparisons
from results.verdict.band import Edge
from search_spaces import MOVED_LABEL


@dataclass(frozen=True)
class Limitation:
    """One limitation."""

    code: str
    """A key of `results.text.limitations.TEXTS`."""
    facts: Mapping[str, Any] = field(default_factory=dict)
    """The numbers and names that its sentence holds."""


def limitations_of(
    sweep: SweepResult, edges: Sequence[Edge], compared: ArmComparisons | None
) -> list[Limitation]:
    """The most important first."""
    found = [*_of_best(sweep, compared), *_of_base(sweep)]
    found += [
        Limitation("edge", {"dimension": e.dimension, "side": e.side, "value": e.value, "end": e.end})
        for e in edges
    ]
    run_again = [] if compared is None else [compared.values[a.arm.name] for a in compared.arms if a.runs]
    untried, mean = untried_side(sweep, sweep.best, run_again)
    if untried:
        found.append(Limitation("rate_untried", {"side": untried, "mean_rate": mean}))
    found += [
        Limitation(
            "widened", {name: moved[name] for name in ("dimension", "side", "before", "after", "finished")}
        )
        for moved in sweep.widened
    ]
    found += [*_of_default(sweep.guideline_default, compared), *_of_trials(sweep)]
    account = sweep.context.get("data_account")
    warnings = account.get("warnings", ()) if isinstance(account, Mapping) else ()
    found += [Limitation("data_warning", {"warning": warning}) for warning in warnings]
    # A single sentence means that every linear layer has an adapter, which is no limitation.
    if len(adapters := sweep.context.get("adapters") or ()) > 1:
        found.append(Limitation("adapters", {"adapters": adapters}))
    if not sweep.guidelines:
        found.append(Limitation("no_rows"))
    return found


def _of_best(sweep: SweepResult, compared: ArmComparisons | None) -> list[Limitation]:
    found = []
    if sweep.best is None:
        found.append(Limitation("no_best"))
    else:
        if compared is None:
            found.append(Limitation("one_run"))
        elif compared.is_of(sweep.best):
            found.append(_replicated(compared))
        if compared is None or not compared.is_of(sweep.best) or not compared.arms[0].finished:
            found.append(Limitation("lowest_of_several", {"finished": len(sweep.finished)}))
    return found + ([] if compared is None else _of_replicates(compared, sweep.best))


def _replicated(compared: ArmComparisons) -> Limitation:
    seeds = max(arm.runs for arm in compared.arms)
    ran = sum(arm.runs > 0 for arm in compared.arms)
    facts = {"arms": ran, "seeds": seeds, "alpha": compared.alpha, "margin": compared.margin}
    return Limitation("replicated", facts)


def _of_replicates(compared: ArmComparisons, best: TrialResult | None) -> list[Limitation]:
    if best is not None and not compared.is_of(best):
        return [Limitation("older_best")]
    found, again = [], compared.arms[0]
    if compared.rounds < MIN_PAIRS:
        found.append(Limitation("few_replicates", {"finished": compared.rounds, "needed": MIN_PAIRS}))
    if lost := again.runs - again.finished:
        found.append(Limitation("best_lost_runs", {"lost": lost, "runs": again.runs}))
    better = [name for name, c in compared.comparisons.items() if relation(c, compared.margin) == "better"]
    if better:
        found.append(Limitation("better_arms", {"arms": better}))
    if lower := _lower_mean(compared, apart_from=better):
        found.append(Limitation("maybe_better", {"arms": lower}))
    return found


def _lower_mean(compared: ArmComparisons, *, apart_from: Sequence[str]) -> list[str]:
    """Arms whose mean over at least MIN_PAIRS seeds is lower than the best's by more than the margin, without
    proof that they are better."""
    least = compared.margin * abs(compared.arms[0].mean or 0.0)
    return [
        name
        for name, found in compared.comparisons.items()
        if name not in apart_from
        and found.effect is not None
        and found.pairs >= MIN_PAIRS
        and found.effect < -least
    ]


def _of_base(sweep: SweepResult) -> list[Limitation]:
    best, base, unquantized = sweep.best, sweep.base_eval_loss, sweep.base_unquantized
    found = []
    if unquantized is not None and unquantized.eval_loss is None:
        found.append(Limitation("unquantized_not_measured", {"reason": unquantized.reason}))
    if best is None or best.eval_loss is None:
        return found
    if base is not None and best.eval_loss >= base:
        return [Limitation("no_better_than_base", {"best": best.eval_loss, "base": base}), *found]
    other = None if unquantized is None else unquantized.eval_loss
    if other is not None and best.eval_loss >= other:
        found.append(Limitation("no_better_than_unquantized", {"best": best.eval_loss, "base": other}))
    return found


def _of_default(default: TrialResult | None, compared: ArmComparisons | None) -> list[Limitation]:
    if default is None:
        return [Limitation("no_default")]
    found = []
    if default.label == MOVED_LABEL:
        found.append(Limitation("default_moved", {"trial": default.number}))
    arms = [] if compared is None else compared.arms
    ran_again = any(arm.arm.role == "guideline_default" and arm.finished for arm in arms)
    if default.eval_loss is None and not ran_again:
        found.append(Limitation("default_unfinished", {"trial": default.number, "outcome": default.outcome}))
    return found


def _of_trials(sweep: SweepResult) -> list[Limitation]:
    found = []
    open_outcomes = ("running", "frozen", "waiting")
    if unfinished := sum(t.outcome in open_outcomes and not t.is_at_rest for t in sweep.trials):
        found.append(Limitation("unfinished", {"trials": unfinished}))
    doubtful = [t.number for t in sweep.trials if t.outcome == "complete" and t.eval_loss is None]
    if doubtful:
        found.append(Limitation("without_loss", {"trials": doubtful}))
    return found
