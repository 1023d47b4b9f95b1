"""Sweeps whose optimum is known: the loss is flat to the left of the best rate and a cliff to its right."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from results.comparison.arms import Arm, Replicate, reference
from results.comparison.constants import ALPHA, INTERVAL_SHARE, MARGIN
from results.comparison.paired import Comparison, compare, compare_all
from results.comparison.quantiles import t_quantile
from results.comparison.stopping import is_clear
from results.words.word_rules import value_word
from results.words.words import Side, Word

ROW_RATES = {"row.low": 2e-5, "row.mid": 1e-4, "row.default": 2e-4, "row.high": 1e-3}


@dataclass(frozen=True, kw_only=True)
class Truth:
    """The noise-free loss of a rate, nats per token."""

    best_rate: float = 2e-4
    floor: float = 2.0
    left: float = 0.03
    """Nats per squared decade below the best rate."""
    cliff: float = 0.6
    """Nats per squared decade above it."""

    def loss(self, rate: float) -> float:
        decades = float(np.log10(rate / self.best_rate))
        return self.floor + (self.left if decades < 0 else self.cliff) * decades**2


@dataclass(frozen=True, kw_only=True)
class Noise:
    """Standard deviations in nats: `seed` is shared by all arms on a seed, `run` is each run's own."""

    seed: float = 0.02
    run: float = 0.004
    lost_above: float | None = None
    """Rates from here on end early on 7 of 10 seeds."""


def arms_of(truth: Truth, noise: Noise, generator: np.random.Generator, trials: int = 16) -> list[Arm]:
    """Search at random, take the lowest noisy loss as the best, add the rows' own values."""
    rates = 10 ** generator.uniform(-5, -2.7, trials)
    losses = [truth.loss(rate) + generator.normal(0, noise.run) for rate in rates]
    best = float(rates[int(np.argmin(losses))])
    arms = [Arm(name="best", role="best", values={"learning_rate": best})]
    return arms + [
        Arm(name=name, role="row", values={"learning_rate": rate}, rows=(name,))
        for name, rate in ROW_RATES.items()
    ]


def run_round(
    arms: Sequence[Arm], losses: Sequence[float], noise: Noise, seed: int, generator: np.random.Generator
) -> list[Replicate]:
    """One run of every arm on one seed; `losses` are the noise-free ones."""
    shared = generator.normal(0, noise.seed)
    own = generator.normal(0, noise.run, len(arms))
    lost = generator.uniform(size=len(arms)) < 0.7
    found = []
    for arm, loss, own_noise, ends in zip(arms, losses, own, lost, strict=True):
        rate = float(arm.values.get("learning_rate", 0.0))
        early = noise.lost_above is not None and rate >= noise.lost_above and bool(ends)
        found.append(
            Replicate(arm=arm.name, seed=seed, eval_loss=None if early else loss + shared + float(own_noise))
        )
    return found


def is_wrong(word: Word, difference: float, bound: float) -> bool:
    """Whether a word claims what is not so; `difference` and `bound` are the noise-free ones, in nats."""
    if word in ("too_low", "too_high", "not_supported"):
        return difference <= bound
    if word in ("supported", "no_worse", "no_difference"):
        return difference >= bound or (word == "no_difference" and difference <= -bound)
    return False


@dataclass(frozen=True, kw_only=True)
class Outcome:
    words: dict[str, Word]
    wrong: bool
    rounds: int
    stopped: bool
    """By the stopping rule, before the budget was spent."""


def confirm(
    arms: Sequence[Arm],
    losses: Sequence[float],
    noise: Noise,
    generator: np.random.Generator,
    *,
    max_rounds: int = 8,
    alpha: float = ALPHA,
    corrected: bool = True,
) -> Outcome:
    """Replicate round by round, look after each one, stop when it is clear or after `max_rounds`.

    `corrected=False` leaves out both corrections: every row at 5% after every round.
    """
    replicates: list[Replicate] = []
    best = reference(arms)
    truth = dict(zip([arm.name for arm in arms], losses, strict=True))
    words: dict[str, Word] = {}
    stopped, used = False, 0
    for seed in range(max_rounds):
        used = seed + 1
        replicates += run_round(arms, losses, noise, seed, generator)
        if corrected:
            stopped = is_clear(arms, replicates, alpha=alpha)
            if stopped or used == max_rounds:
                words = _words(arms, compare_all(arms, replicates, alpha=alpha))
                break
        else:
            others = [arm.name for arm in arms if arm is not best]
            plain = {name: _uncorrected(name, best.name, replicates, alpha) for name in others}
            now = _words(arms, plain)
            words |= {name: word for name, word in now.items() if words.get(name, "undecided") == "undecided"}
    bound = MARGIN * truth[best.name]
    wrong = any(is_wrong(word, truth[name] - truth[best.name], bound) for name, word in words.items())
    return Outcome(words=words, wrong=wrong, rounds=used, stopped=stopped)


def _uncorrected(arm: str, other: str, runs: Sequence[Replicate], alpha: float) -> Comparison:
    """Both arms finished on every seed: the plain interval of the differences, the same at every look."""
    found = compare(arm, other, runs)
    if found.effect is None or found.low is None:
        return found
    ours, theirs = ([run.eval_loss for run in runs if run.arm == name] for name in (arm, other))
    spread = float(np.std(np.subtract(ours, theirs), ddof=1))
    half = t_quantile(alpha * INTERVAL_SHARE, found.pairs - 1) * spread / found.pairs**0.5
    return replace(found, low=found.effect - half, high=found.effect + half)


def _words(arms: Sequence[Arm], found: dict[str, object]) -> dict[str, Word]:
    best = float(reference(arms).values["learning_rate"])
    rates = {arm.name: float(arm.values["learning_rate"]) for arm in arms}
    sides: dict[str, Side] = {name: "above" if rate > best else "below" for name, rate in rates.items()}
    return {name: value_word(c, side=sides[name]) for name, c in found.items()}  # type: ignore[arg-type]
