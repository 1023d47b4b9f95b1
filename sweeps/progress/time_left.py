"""How long a sweep still takes: from measured steps, what pruning has left of trials so far, and the seats.

Everything is in shares of a full trial's budget. `Countdown` makes an estimate readable: it never grows
unless something has changed for the worse, and then it says what.
"""

from __future__ import annotations

import bisect
import heapq
import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

Shares = Sequence[tuple[float, float]]
"""Shares of the budget that trials use, each with its probability."""
MIN_SECONDS, MIN_SHARE = 2.0, 0.002
"""Measured on seats before anything is estimated."""
PRIOR_TRIALS = 2.0
"""So many trials count for what the plan expects of pruning, beside those that have ended."""
DRAWS, QUANTILE = 24, 0.7
"""Of how pruning may go on; rather too long than too short, since what is shown never grows."""
CAUTION = 0.3
"""The first estimate is this much longer; less with every trial that is measured."""
SLOWER_FACTOR, SLOWER_SECONDS = 1.5, 60.0
"""An estimate that is so much longer than what is shown, for so long, is a change for the worse."""
UNKNOWN: Shares = ((0.3, 0.5), (1.0, 0.5))
"""What is expected of trials under a pruner without rungs."""


@dataclass(frozen=True, kw_only=True)
class Work:
    """What is left to do."""

    running: Sequence[tuple[float, bool]]
    """Share of the budget done, of each trial on a seat, and whether it is never pruned."""
    waiting: Sequence[float]
    """The same of trials that wait for a seat."""
    new: int
    """Trials that are still to be started."""
    seats: int
    ended: Sequence[float]
    """Share of the budget that each trial used that has ended."""
    prior: Shares
    """What the plan expects before any has ended."""
    until_no_more_start: float | None = None
    """Seconds after which no new trial is started; None: no limit."""


def seconds_of(work: Work, trial_seconds: float) -> float:
    """How long the work takes if a full trial takes `trial_seconds` on its seat.

    What pruning will leave of each trial is drawn, several times and always the same: the sweep ends with its
    longest trial, and not with an average one.
    """
    chance = random.Random(0)
    draws = sorted(_shares_until_the_end(work, trial_seconds, chance) for _ in range(DRAWS))
    return draws[int(QUANTILE * (DRAWS - 1))] * trial_seconds


def _shares_until_the_end(work: Work, trial_seconds: float, chance: random.Random) -> float:
    spread = _Spread(work, chance)
    ends = [(1.0 if whole else spread.draw(share)) - share for share, whole in work.running]
    seats = [0.0] * max(0, max(1, work.seats) - len(ends)) + ends
    heapq.heapify(seats)
    last = max(ends, default=0.0)
    until = math.inf if work.until_no_more_start is None else work.until_no_more_start / trial_seconds
    # Far from the end only the sum counts, for which the mean will do.
    drawn = min(work.new, 2 * len(seats))
    shares = [spread.mean()] * (work.new - drawn) + [spread.draw(0.0) for _ in range(drawn)]
    for share in [*(spread.draw(share) - share for share in work.waiting), *shares]:
        if seats[0] > until:
            break
        end = heapq.heappop(seats) + share
        heapq.heappush(seats, end)
        last = max(last, end)
    return last


class _Spread:
    """Shares that trials use of their budget: those that have ended, and what the plan expects."""

    def __init__(self, work: Work, chance: random.Random) -> None:
        self._chance = chance
        counted = [(share, 1.0) for share in work.ended]
        counted += [(share, weight * PRIOR_TRIALS) for share, weight in work.prior]
        counted.sort()
        self._shares = [share for share, _ in counted]
        self._sums = list(accumulate(weight for _, weight in counted))

    def mean(self) -> float:
        """Of all trials."""
        before = [0.0, *self._sums]
        weights = [after - earlier for earlier, after in zip(before, self._sums, strict=False)]
        return sum(share * w for share, w in zip(self._shares, weights, strict=True)) / self._sums[-1]

    def draw(self, reached: float) -> float:
        """Of a trial that has reached `reached`."""
        first = bisect.bisect_right(self._shares, reached)
        if first == len(self._shares):
            return 1.0
        below = self._sums[first - 1] if first else 0.0
        at = below + self._chance.random() * (self._sums[-1] - below)
        return self._shares[min(bisect.bisect_left(self._sums, at), len(self._shares) - 1)]


def prior_shares(search: Mapping[str, Any], pruned_at: Sequence[int], *, is_confirm: bool = False) -> Shares:
    """What trials are expected to use of their budget, before any trial has ended.

    `pruned_at`: the percents at which the pruner may stop them.
    """
    if is_confirm or not pruned_at:
        return ((1.0, 1.0),)
    if search["pruner"] not in ("successive_halving", "hyperband"):
        return UNKNOWN
    factor, part = float(search["pruner_options"].get("reduction_factor", 2)), 1.0
    shares = []
    for percent in pruned_at:
        shares.append((percent / 100, part * (1 - 1 / factor)))
        part /= factor
    return (*shares, (1.0, part))


@dataclass
class Measured:
    """What was measured on all seats of this run."""

    seconds: float = 0.0
    share: float = 0.0

    def add(self, seconds: float, share: float) -> None:
        self.seconds += seconds
        self.share += share

    def trial_seconds(self, not_evaluated: float = 0.0) -> float | None:
        """Seconds of a full trial on its seat; None while too little is measured.

        `not_evaluated`: seconds of its evaluations, where none of them is in the measurement.
        """
        if self.seconds < MIN_SECONDS or self.share < MIN_SHARE:
            return None
        return (self.seconds / self.share + not_evaluated) * (1 + CAUTION * math.exp(-2 * self.share))


class Countdown:
    """What is shown of a changing estimate."""

    def __init__(self) -> None:
        self._shown: float | None = None
        self._worse = ""
        self._longer_since: float | None = None
        self.note = ""
        """Why it last grew."""

    def worse(self, reason: str) -> None:
        """Something has changed for the worse: the next estimate may be longer than the last."""
        self._worse = reason

    def show(self, estimate: float | None, now: float) -> float | None:
        """What to show at `now` for this estimate."""
        if estimate is None:
            return self._shown
        if self._shown is None or estimate <= self._shown:
            self._shown, self._longer_since = max(0.0, estimate), None
            return self._shown
        reason = self._worse or self._slower(estimate, now)
        if reason:
            self._shown, self.note = estimate, reason
            self._worse, self._longer_since = "", None
        return self._shown

    def _slower(self, estimate: float, now: float) -> str:
        assert self._shown is not None
        if estimate < SLOWER_FACTOR * self._shown + SLOWER_SECONDS:
            self._longer_since = None
            return ""
        self._longer_since = now if self._longer_since is None else self._longer_since
        return "it goes slower than before" if now - self._longer_since >= SLOWER_SECONDS else ""
