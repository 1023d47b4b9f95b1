"""The sentence of every limitation."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from files_and_text.numbers import loss, number, plural
from results.text.values import conjunction
from results.verdict.limitations import Limitation


def limitation_text(limitation: Limitation) -> str:
    """The limitation in one or two sentences."""
    return TEXTS[limitation.code](**limitation.facts)


TEXTS: Mapping[str, Callable[..., str]] = {
    "no_best": lambda: (
        "No trial finished its full budget with a finite loss: there is no best config and no cost of a row."
    ),
    "one_run": lambda: (
        "One run per config: how much of a difference is noise between seeds cannot be said yet. "
        "Nothing here is a claim until the best and the guideline default are run again on other seeds."
    ),
    "replicated": lambda arms, seeds, alpha, margin: (
        f"The verdicts rest on {plural(arms, 'arm')}, run again on up to {plural(seeds, 'common seed')}: the "
        f"family-wise error rate is at most {100 * alpha:g}%, with a margin of {100 * margin:g}% of the "
        "best's loss, if differences between runs are about normal. Costs and positions still rest on one "
        "run per config."
    ),
    "lowest_of_several": lambda finished: (
        f"The best is the lowest of {plural(finished, 'finished trial')}: the lowest of several noisy losses "
        "is lower than the same config would give again."
    ),
    "few_replicates": lambda finished, needed: (
        f"The best has {plural(finished, 'finished replicate')}; below {needed} there is no interval."
    ),
    "best_lost_runs": lambda lost, runs: (
        f"The best itself did not finish on {lost} of {plural(runs, 'seed')}: if its runs diverge, a lower "
        "learning rate is the safer choice."
    ),
    "better_arms": lambda arms: (
        f"On the new seeds {conjunction(arms)} came out better than the sweep's best by more than the margin."
    ),
    "older_best": lambda: (
        "The replicated best is not the best of the sweep as it is now: trials were added since."
    ),
    "no_better_than_base": lambda best, base: (
        f"The best trial ({loss(best)}) is no better than the untouched base ({loss(base)})."
    ),
    "edge": lambda dimension, side, value, end: (
        f"The best {dimension}, {number(value)}, lies at the {side} end of what was searched "
        f"({number(end)}): widen the range and search again."
    ),
    "no_default": lambda: (
        "No trial took the tables' own values all at once, so there is no guideline default to compare with."
    ),
    "default_moved": lambda trial: (
        f"The guideline default, trial {trial}, is not quite the tables' own: the user's ranges leave some "
        "of their values out."
    ),
    "default_unfinished": lambda trial, outcome: (
        f"The guideline default, trial {trial}, did not finish ({outcome})."
    ),
    "unfinished": lambda trials: f"{plural(trials, 'trial')} not finished: this can still change.",
    "without_loss": lambda trials: (
        "Stored as complete but left out, for want of a finite loss at the full budget: "
        f"{plural(len(trials), 'trial')} ({', '.join(map(str, trials))})."
    ),
    "data_warning": lambda warning: f"About the data: {warning}.",
    "adapters": lambda adapters: f"Adapters were trained {'; '.join(adapters)}.",
    "no_rows": lambda: "The study names no guideline rows, so none is judged.",
    "noise_unknown": lambda: (
        "No config of this model up to its best rate was run twice: noise is unknown there."
    ),
    "pooled_noise": lambda groups, degrees, spread, highest_rate, pairs, alpha, guard: (
        f"Noise from {plural(groups, 'config')} run more than once, with {degrees} degrees of freedom: "
        f"{spread:.5f} nats a run, at rates up to {number(highest_rate)}. This model's intervals hold "
        f"together for all {pairs} pairs of rates at {100 * (1 - alpha):g}%, if noise is alike in all "
        f"configs (taken {guard:g} times as large above rates that were run twice)."
    ),
}
