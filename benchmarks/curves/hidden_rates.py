"""Hide all runs of a model at one rate, and foretell what each costs against the best of the rest."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from results.curve_model.hyperparameters import Hyperparameters
from results.curve_model.points import CurvePoints
from results.curve_model.posterior import CurvePosterior

MARGIN = 0.5
"""Percent."""
SURE = 0.95

Place = tuple[float, float]
"""(log10 rate, log2 rank)."""


@dataclass(frozen=True, kw_only=True)
class Foretold:
    """The cost of one config at a hidden rate against the best config of the same rank at the other rates."""

    rate: float
    rank: float
    median: float
    low: float
    high: float
    """Ends of the central 95%, percent."""
    worse: float
    """Probability that it costs more than MARGIN."""
    truth: float
    linear: float | None
    """By a line between the two neighbouring rates; None at an end."""

    @property
    def decided(self) -> bool:
        """Whether a word is said: costs more than the margin, or does not."""
        return self.worse >= SURE or self.worse <= 1 - SURE

    @property
    def wrong(self) -> bool:
        """Whether the word said is not true."""
        return self.decided and (self.worse >= SURE) != (self.truth > MARGIN)

    @property
    def covered(self) -> bool:
        """Whether the truth lies in the interval."""
        return self.low <= self.truth <= self.high

    @property
    def linear_wrong(self) -> bool:
        """Whether the line gives the wrong answer."""
        return self.linear is not None and (self.linear > MARGIN) != (self.truth > MARGIN)


def observed(points: CurvePoints) -> dict[Place, float]:
    """The mean loss of each config."""
    found: dict[Place, list[float]] = {}
    for rate, rank, loss in zip(points.rate, points.rank, points.loss, strict=True):
        found.setdefault((float(rate), float(rank)), []).append(float(loss))
    return {place: float(np.mean(losses)) for place, losses in found.items()}


def foretell(
    h: Hyperparameters, points: CurvePoints, truth: Mapping[Place, float] | None = None
) -> Iterator[Foretold]:
    """Every config of every rate, its runs hidden. `truth`: the true curve; None: what was observed."""
    seen = observed(points)
    truth = truth or seen
    for rate in sorted({place[0] for place in seen}):
        kept = points.where(~np.isclose(points.rate, rate))
        if len(set(kept.rate)) < 2:
            continue
        posterior = CurvePosterior(h, kept)
        for place in [p for p in seen if p[0] == rate]:
            peers = {p: loss for p, loss in seen.items() if p[1] == place[1] and p[0] != rate}
            if not peers:
                continue
            best = min(peers, key=lambda p: peers[p])
            rates, ranks = np.array([place, best]).T
            difference = posterior.differences(rates, ranks)[0]
            line = None
            if min(p[0] for p in peers) < rate < max(p[0] for p in peers):
                order = sorted(peers)
                line = float(np.interp(rate, [p[0] for p in order], [peers[p] for p in order])) - peers[best]
            yield Foretold(
                rate=10**rate,
                rank=2 ** place[1],
                median=difference.quantile(0.5),
                low=difference.quantile(0.025),
                high=difference.quantile(0.975),
                worse=1 - difference.at_most(MARGIN),
                truth=truth[place] - truth[best],
                linear=line,
            )


def hidden_rank_errors(h: Hyperparameters, points: CurvePoints) -> Iterator[tuple[float, float]]:
    """All runs of one rank hidden: absolute errors in percent by the model, and by lines through the nearest
    two ranks."""
    seen = observed(points)
    for rank in sorted({place[1] for place in seen}):
        hidden = [place for place in seen if place[1] == rank]
        kept = points.where(~np.isclose(points.rank, rank))
        if len(set(kept.rank)) < 2:
            continue
        posterior = CurvePosterior(h, kept)
        guesses = posterior.expected(*np.array(hidden).T)
        for place, guess in zip(hidden, guesses, strict=True):
            others = sorted(
                (abs(p[1] - rank), p[1], loss) for p, loss in seen.items() if p[0] == place[0] and p != place
            )[:2]
            if len(others) < 2:
                continue
            (_, z1, one), (_, z2, two) = others
            line = one + (two - one) * (rank - z1) / (z2 - z1)
            yield abs(float(guess) - seen[place]), abs(line - seen[place])


def summary(name: str, found: Iterable[Foretold]) -> tuple[str, ...]:
    """A row of the table: how many were judged, decided, wrong, covered, and how wrong a line is."""
    all_ = list(found)
    decided = [each for each in all_ if each.decided]
    wrong = sum(each.wrong for each in decided)
    lines = [each for each in all_ if each.linear is not None]
    error = np.median([abs(each.median - each.truth) for each in all_])
    return (
        name,
        str(len(all_)),
        f"{len(decided)} ({len(decided) / len(all_):.0%})",
        f"{wrong} ({wrong / max(1, len(decided)):.1%})",
        f"{np.mean([each.covered for each in all_]):.3f}",
        f"{error:.2f}",
        f"{np.mean([each.linear_wrong for each in lines]):.0%}",
    )
