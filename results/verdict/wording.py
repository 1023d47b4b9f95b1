"""The sentences of a verdict: modest, and each naming the trial it rests on."""

from __future__ import annotations

from collections.abc import Mapping

from files_and_text.numbers import loss
from results.sweep_result import SweepResult, TrialResult
from results.verdict.conditions import conjunction
from results.verdict.row_verdict import Cost, RowVerdict
from search_spaces import GuidelineRow


def not_tested(
    row: GuidelineRow,
    reason: str,
    *,
    stopped: tuple[str, ...] = (),
    details: Mapping[str, object] | None = None,
    evidence: str = "not measured",
    claim: str = "",
) -> RowVerdict:
    return RowVerdict(
        row=row,
        position="not_tested",
        reason=reason,
        stopped=stopped,
        details=details or {},
        evidence=evidence,
        claim=f"Not tested: {reason}." + (f" {claim[0].upper()}{claim[1:]}" if claim else ""),
    )


def nothing_finished(row: GuidelineRow, sweep: SweepResult) -> str:
    if not sweep.finished:
        return "no trial finished its full budget with a finite loss"
    return f"no finished trial has a value of {row.parameter}"


def how_it_ended(trial: TrialResult) -> str:
    """How a trial of the row's own value ended before its full budget."""
    who = f"trial {trial.number} (the row's own value)"
    if trial.outcome == "running":
        return f"{who} is still running" + ("" if trial.percent is None else f", at {trial.percent}%")
    verb = {"failed": "failed", "diverged": "diverged", "out_of_memory": "ran out of memory"}.get(
        trial.outcome, "was stopped"
    )
    at = "" if trial.percent is None else f" at {trial.percent}%"
    return f"{who} {verb}{at}" + (f": {trial.stop_reason.rstrip('.')}" if trial.stop_reason else "")


def evidence_of(cost: Cost | None, sweep: SweepResult) -> str:
    if cost is None:
        return "not measured"
    best = sweep.best
    is_best = ", the best itself" if best is not None and best.number == cost.trial else ""
    if cost.own_value:
        return f"measured by trial {cost.trial} (the row's own value{is_best})"
    return f"best full-budget trial inside the row: {cost.trial}{is_best}"


def cost_sentence(cost: Cost) -> str:
    if cost.own_value:
        who = f"The row's own value was measured by trial {cost.trial}, which"
    else:
        who = f"The best full-budget trial inside the row, {cost.trial},"
    shared = f"; it also differs in {conjunction(cost.differs_in)}" if cost.differs_in else ""
    return f"{who} {against(cost)}{shared}."


def against(cost: Cost) -> str:
    if cost.difference == 0:
        return f"has the lowest loss of the sweep, {loss(cost.eval_loss)}"
    share = "" if cost.percent is None else f" ({cost.percent:.2f}%)"
    return f"ended at {loss(cost.eval_loss)}, {cost.difference:.4f}{share} above the best"


def by_distance(distance: float | None) -> str:
    return f", by {distance:.2f} in log10" if distance else ""
