"""The sentence of every limitation."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from files_and_text.numbers import number, plural
from results.text.gaps import short_loss
from results.text.values import conjunction
from results.verdict.limitations import Limitation


def limitation_text(limitation: Limitation) -> str:
    """The limitation in one or two sentences."""
    return TEXTS[limitation.code](**limitation.facts)


_NOTED = (
    "best_lost_runs",
    "better_arms",
    "maybe_better",
    "older_best",
    "no_better_than_base",
    "no_better_than_unquantized",
    "edge",
    "widened",
    "default_moved",
    "without_loss",
    "merged_not_read",
    "data_warning",
    "no_rows",
)
"""Limitations that a reader has to know beside the answer; the answer itself says the others."""


def notes(limitations: Sequence[Limitation], *, most: int = 4) -> list[str]:
    """The sentences that matter beside the answer, the most important first, at most `most`."""
    found = [limitation for limitation in limitations if limitation.code in _NOTED]
    return [limitation_text(limitation) for limitation in found[:most]]


TEXTS: Mapping[str, Callable[..., str]] = {
    "no_best": lambda: (
        "No trial finished its full budget with a finite loss: there is no best, and no row has a cost."
    ),
    "one_run": lambda: (
        "Every configuration ran once, so any difference may be chance. `sweeps confirm` runs the best and "
        "the guideline default again on new seeds."
    ),
    "replicated": lambda arms, seeds, alpha, margin: (
        f"The words rest on {plural(arms, 'configuration')}, run again on up to "
        f"{plural(seeds, 'common seed')}. The chance that any of them is wrong is at most {100 * alpha:g}%, "
        f"with a margin of {100 * margin:g}% of the best's loss, if differences between runs are about "
        "normal. Intervals over seeds hold for the sweep's own evaluation records. Where the best lies, and "
        "costs without seeds, rest on single runs."
    ),
    "lowest_of_several": lambda finished: (
        f"The best is the lowest of {plural(finished, 'finished trial')}, so part of its lead is luck: run "
        "again it would probably end a little higher."
    ),
    "few_replicates": lambda finished, needed: (
        f"The best has finished on {plural(finished, 'new seed')}; an interval needs {needed}."
    ),
    "best_lost_runs": lambda lost, runs: (
        f"The best did not finish on {lost} of {plural(runs, 'new seed')}. If its runs diverge, a lower "
        "learning rate is safer."
    ),
    "better_arms": lambda arms: (
        f"On the new seeds {conjunction(arms)} came out better than the sweep's best by more than the margin."
    ),
    "maybe_better": lambda arms: (
        f"On the new seeds {conjunction(arms)} had a lower mean loss than the best, by more than the margin; "
        "whether better is not known yet."
    ),
    "older_best": lambda: (
        "The confirmation is of an earlier best; trials were added since, so words and costs here rest on "
        "single runs."
    ),
    "no_better_than_base": lambda best, base: (
        f"The best ({short_loss(best)}) is no better than the untouched base ({short_loss(base)})."
    ),
    "no_better_than_unquantized": lambda best, base: (
        f"The best ({short_loss(best)}) is no better than the untouched base without quantization "
        f"({short_loss(base)})."
    ),
    "unquantized_not_measured": lambda reason: (
        f"The untouched base was not measured without quantization: {reason.rstrip('.')}."
    ),
    "edge": lambda dimension, side, value, end: (
        f"The best {dimension}, {number(value)}, is at the {side} end of what was searched ({number(end)}): "
        "widen the range and search again."
    ),
    "rate_untried": lambda side, mean_rate: (
        f"Nothing with a {side} mean learning rate over the run than the best's, {number(mean_rate)}, was "
        f"tried: a better rate may lie {'above' if side == 'higher' else 'below'}."
    ),
    "widened": lambda dimension, side, before, after, finished: (
        f"After {plural(finished, 'trial')} the best {dimension} lay at the {side} end of its range, "
        f"{number(before)}, so the sweep went on to {number(after)}."
    ),
    "no_default": lambda: (
        "No trial took all of the tables' own values: there is no guideline default to compare with."
    ),
    "default_moved": lambda trial: (
        f"The guideline default, trial {trial}, differs from the tables: the sweep's ranges leave some of "
        "their values out."
    ),
    "default_unfinished": lambda trial, outcome: (
        f"The guideline default, trial {trial}, did not finish ({outcome})."
    ),
    "unfinished": lambda trials: f"{plural(trials, 'trial')} not finished: the answer can still change.",
    "without_loss": lambda trials: (
        f"{plural(len(trials), 'trial')} left out, complete without a finite loss at the full budget: "
        f"{', '.join(map(str, trials))}."
    ),
    "merged_not_read": lambda reason: (
        f"The loss of the merged model is left out. {reason.rstrip('.')}. `sweeps merge` measures it again."
    ),
    "data_warning": lambda warning: f"Data: {warning.rstrip('.')}.",
    "adapters": lambda adapters: f"Adapters were trained {'; '.join(adapters)}.",
    "no_rows": lambda: "The study names no guideline rows, so none is checked.",
    "few_rates": lambda least: (
        f"Fewer than {least} learning rates of this model were tried with the best's other settings (rates "
        "within 5% count as one), so no curve is fitted and every word is undecided."
    ),
    "no_curve_of_losses": lambda: (
        "Its losses are not above 0, so no curve is fitted and every word is undecided."
    ),
    "curve": lambda runs, rates, highest, near_divergence, off: (
        f"Costs are those of a curve through {plural(runs, 'run')} at {rates} learning rates, up to "
        f"{number(highest)}."
        + (f" Left out near divergence: {plural(near_divergence, 'run')}." if near_divergence else "")
        + (
            f" It passes by the runs at {conjunction([number(rate) for rate in off])}: the cost there is "
            "theirs, and the interval holds both."
            if off
            else ""
        )
    ),
}
