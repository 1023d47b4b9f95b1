"""What keeps a verdict from being more than it is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from files_and_text.numbers import loss, number, plural
from results.sweep_result import SweepResult, TrialResult
from results.verdict.comparisons import Weighed
from results.verdict.conditions import conjunction
from results.verdict.statistics import MIN_PAIRS, relation
from search_spaces import MOVED_LABEL

ONE_RUN = (
    "One run per config: how much of a difference is noise between seeds cannot be said yet. "
    "Nothing here is a claim until the best and the guideline default are run again on other seeds."
)


def caveats(
    sweep: SweepResult, edges: Sequence[tuple[str, str, float, float]], weighed: Weighed | None
) -> list[str]:
    """Sentences, the most important first; `edges` are (dimension, side, best value, end of the range)."""
    best, default = sweep.best, sweep.guideline_default
    found = []
    if best is None:
        found.append(
            "No trial finished its full budget with a finite loss: there is no best config and no cost "
            "of a row."
        )
    else:
        found.append(ONE_RUN if weighed is None else _replicated(weighed))
        found.append(
            f"The best is the lowest of {plural(len(sweep.finished), 'finished trial')}: the lowest of "
            "several noisy losses "
            "is lower than the same config would give again."
        )
    if weighed is not None:
        found.extend(_of_replicates(weighed, best))
    if (
        best is not None
        and sweep.base_eval_loss is not None
        and (best.eval_loss or 0) >= sweep.base_eval_loss
    ):
        found.append(
            f"The best trial ({loss(best.eval_loss)}) is no better than the untouched base "
            f"({loss(sweep.base_eval_loss)})."
        )
    found.extend(
        f"The best {name}, {number(value)}, lies at the {side} end of what was searched "
        f"({number(end)}): widen the range and search again."
        for name, side, value, end in edges
    )
    if default is None:
        found.append(
            "No trial took the tables' own values all at once, so there is no guideline default to "
            "compare with."
        )
    elif default.label == MOVED_LABEL:
        found.append(
            f"The guideline default, trial {default.number}, is not quite the tables' own: the user's ranges "
            "leave some of their values out."
        )
    if default is not None and default.eval_loss is None:
        found.append(f"The guideline default, trial {default.number}, did not finish ({default.outcome}).")
    if unfinished := sum(trial.outcome in ("running", "waiting") for trial in sweep.trials):
        found.append(f"{plural(unfinished, 'trial')} not finished: this can still change.")
    doubtful = [
        trial.number for trial in sweep.trials if trial.outcome == "complete" and trial.eval_loss is None
    ]
    if doubtful:
        found.append(
            "Stored as complete but left out, for want of a finite loss at the full budget: "
            f"{plural(len(doubtful), 'trial')} "
            f"({', '.join(map(str, doubtful))})."
        )
    account = sweep.context.get("data_account")
    if isinstance(account, Mapping):
        found.extend(f"About the data: {warning}." for warning in account.get("warnings", ()))
    # Of one sentence alone every linear layer has an adapter, which needs no word.
    if len(adapters := sweep.context.get("adapters") or ()) > 1:
        found.append(f"Adapters were trained {'; '.join(adapters)}.")
    if not sweep.guidelines:
        found.append("The study names no guideline rows, so none is judged.")
    return found


def _replicated(weighed: Weighed) -> str:
    seeds = max(arm.runs for arm in weighed.arms)
    return (
        f"Words rest on {plural(len(weighed.arms), 'arm')}, run again on up to "
        f"{plural(seeds, 'common seed')}: the chance of one or more wrong words is at most "
        f"{100 * weighed.alpha:g}%, with a margin of {100 * weighed.margin:g}% of the best's loss, if "
        "differences between runs are about normal. Costs "
        "and positions still rest on one run per config."
    )


def _of_replicates(weighed: Weighed, best: TrialResult | None) -> list[str]:
    found, again = [], weighed.arms[0]
    if weighed.rounds < MIN_PAIRS:
        found.append(
            f"The best has {plural(weighed.rounds, 'finished replicate')}; below {MIN_PAIRS} there is no "
            "interval."
        )
    if lost := again.runs - again.finished:
        found.append(
            f"The best itself did not finish on {lost} of {plural(again.runs, 'seed')}: if its runs diverge, "
            "a lower learning rate is the safer choice."
        )
    better = [name for name, c in weighed.comparisons.items() if relation(c, weighed.margin) == "better"]
    if better:
        found.append(
            f"On the new seeds {conjunction(better)} came out better than the sweep's best by more than the "
            "margin."
        )
    drawn = None if best is None else best.values.get("learning_rate")
    if drawn is not None and drawn != weighed.values[weighed.reference.name].get("learning_rate"):
        found.append(
            "The replicated best is not the best of the sweep as it is now: trials were added since."
        )
    return found
