"""Wrong, undecided and lost words over many simulated sweeps, with Monte-Carlo standard errors."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from statistics import fmean, stdev
from typing import Any

import numpy as np

from benchmarks.simulator.confirmations import MARGIN, simulate_confirmation
from benchmarks.simulator.sweeps import simulate_sweep
from benchmarks.simulator.truth import NO_CLAIM, Truth
from benchmarks.simulator.worlds import MODEL_SIZES, World
from results.verdict.row_verdict import RowVerdict
from search_spaces import GuidelineRow
from sweeps.errors import ConfigError


@dataclass(kw_only=True)
class Outcome:
    """What one simulated confirmation said."""

    number: int
    """Of the sweep, which its seed follows from."""
    runs: int = 0
    arms: int = 0
    statements: int = 0
    """Distinct statements of tested rows: rows that say the same count once."""
    undecided: int = 0
    wrong: list[str] = field(default_factory=list)
    """`row: word` of every word that was wrong at any look."""
    wrong_at_end: list[str] = field(default_factory=list)
    wrong_for_retuner: list[str] = field(default_factory=list)
    wrong_by_trials: list[str] = field(default_factory=list)
    """Refuted though a finished trial of the sweep takes the value at no more than the margin."""
    lost: list[str] = field(default_factory=list)
    """`row: word -> word` of every word that a later look took back."""
    found: int = 0
    to_find: int = 0
    """Arms that are worse by the world's `power_of`, and those of them that were shown to be."""
    words: dict[str, int] = field(default_factory=dict)
    """Word at the end -> statements."""
    refused: bool = False
    """Whether the program had no plan for so few runs."""


def simulate(
    world: World,
    number: int,
    *,
    seed: int = 0,
    runs: int | None = None,
    seats: int | None = None,
    look_at: str = "rounds",
    trials: int = 32,
) -> Outcome:
    """One sweep and its confirmation; `runs` is its budget, None the program's own."""
    generator = np.random.default_rng([seed, number])
    size = MODEL_SIZES[number % len(MODEL_SIZES)]
    simulated = simulate_sweep(world, generator, model_size=size, trials=trials)
    outcome = Outcome(number=number)
    if simulated.sweep.best is None:
        return outcome
    truth, before = None, {}
    looks = simulate_confirmation(simulated, generator, runs=runs, seats=seats, look_at=look_at)
    try:
        for look in looks:
            truth = truth or Truth(simulated, look.arms, 100 * MARGIN)
            rows = [row for row in look.verdict.rows if row.word != "not_tested"]
            wrong = [f"{row.row.id}: {row.word}" for row in rows if truth.is_wrong(row, look)]
            outcome.wrong += [text for text in wrong if text not in outcome.wrong]
            for kind, is_so in (
                (outcome.wrong_for_retuner, truth.is_wrong_for_retuner),
                (outcome.wrong_by_trials, truth.is_wrong_by_trials),
            ):
                texts = (f"{row.row.id}: {row.word}" for row in rows if is_so(row, look))
                kind += [text for text in texts if text not in kind]
            after = {row.row.id: row.word for row in rows}
            outcome.lost += [
                f"{name}: {word} -> {after.get(name, 'not_tested')}"
                for name, word in before.items()
                if word not in NO_CLAIM and is_taken_back(word, after.get(name, "not_tested"))
            ]
            before = after
            if look.is_last:
                outcome.runs, outcome.arms = look.num_runs, len(look.arms)
                outcome.wrong_at_end = wrong
                said = statements(rows)
                outcome.words = dict(Counter(said))
                outcome.statements, outcome.undecided = len(said), said.count("undecided")
                _count_power(outcome, world, truth, look)
    except ConfigError:
        outcome.refused = True
    return outcome


SHARPER = frozenset(
    {("no_worse", "supported"), ("no_worse", "no_difference"), ("supported", "no_difference")}
)
"""A word that says more of the same is not lost."""


def is_taken_back(word: str, later: str) -> bool:
    """Whether a later look contradicts or withdraws a word."""
    return later != word and (word, later) not in SHARPER


def statements(rows: Sequence[RowVerdict]) -> list[str]:
    """The word of each distinct statement: rows with the same parameter and values are one line."""
    found: dict[Any, str] = {}
    for row in rows:
        found.setdefault(_statement(row.row), row.word)
    return list(found.values())


def _statement(row: GuidelineRow) -> tuple[Any, ...]:
    return row.topic == "boundary", row.parameter, row.low, row.high, tuple(row.choices or ()), row.direction


def _count_power(outcome: Outcome, world: World, truth: Truth, look: Any) -> None:
    replicates = look.verdict.replicates
    if world.power_of is None or replicates is None:
        return
    for name, comparison in replicates.comparisons.items():
        if not math.isclose(truth.cost_of(look.arms[name]), world.power_of, rel_tol=1e-6):
            continue
        outcome.to_find += 1
        low, loss = comparison.low, comparison.other_loss
        outcome.found += low is not None and loss is not None and low > MARGIN * loss


@dataclass(frozen=True, kw_only=True)
class Rate:
    """A figure and its Monte-Carlo standard error."""

    value: float
    error: float

    def __str__(self) -> str:
        return f"{self.value:.3f} ± {self.error:.3f}"

    def is_above(self, limit: float, errors: float = 2.0) -> bool:
        """Whether it lies above a limit by more than this many standard errors."""
        return self.value - errors * self.error > limit


def share(outcomes: Sequence[Outcome], is_so: Callable[[Outcome], bool]) -> Rate:
    """Share of sweeps."""
    value = sum(map(is_so, outcomes)) / len(outcomes)
    return Rate(value=value, error=error_of_share(value, len(outcomes)))


def error_of_share(value: float, total: int) -> float:
    """The standard error of a share of so many; not 0 where none was seen, but as if one of twice as many had
    been."""
    return math.sqrt(max(value * (1 - value), 0.5 / total) / total)


def mean(values: Sequence[float]) -> Rate:
    """Mean over sweeps."""
    error = stdev(values) / math.sqrt(len(values)) if len(values) > 1 else math.nan
    return Rate(value=fmean(values), error=error)


@dataclass(frozen=True, kw_only=True)
class Scores:
    """What many confirmations of one world said; each figure has its Monte-Carlo error."""

    sweeps: int
    wrong: Rate
    """Sweeps with a wrong word at any look."""
    wrong_at_end: Rate
    wrong_for_retuner: Rate
    wrong_by_trials: Rate
    lost: Rate
    """Sweeps in which a look took a word back."""
    undecided: Rate
    """Share of a sweep's distinct statements."""
    runs: Rate
    arms: Rate
    refused: int
    power: Rate | None
    """Share of the arms that are worse by the world's `power_of`."""

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def scores(outcomes: Sequence[Outcome]) -> Scores:
    """The figures of one world."""
    ran = [outcome for outcome in outcomes if outcome.statements]
    powers = [outcome.found / outcome.to_find for outcome in ran if outcome.to_find]
    return Scores(
        sweeps=len(outcomes),
        wrong=share(outcomes, lambda outcome: bool(outcome.wrong)),
        wrong_at_end=share(outcomes, lambda outcome: bool(outcome.wrong_at_end)),
        wrong_for_retuner=share(outcomes, lambda outcome: bool(outcome.wrong_for_retuner)),
        wrong_by_trials=share(outcomes, lambda outcome: bool(outcome.wrong_by_trials)),
        lost=share(outcomes, lambda outcome: bool(outcome.lost)),
        undecided=mean([outcome.undecided / outcome.statements for outcome in ran]),
        runs=mean([outcome.runs for outcome in ran]),
        arms=mean([outcome.arms for outcome in ran]),
        refused=sum(outcome.refused for outcome in outcomes),
        power=mean(powers) if powers else None,
    )
