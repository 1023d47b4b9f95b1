"""What the undecided guideline rows of a confirmation wait for, and how many runs that takes.

Every arm takes the seeds in the same order, and its interval holds at all of its looks at once, whenever it
stops. So which arm runs next may depend on everything that has been seen.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from results.allocation.expected import Expected
from results.allocation.one_row import OneRow
from results.allocation.projection import Projection
from results.comparison.arms import Arm, Replicate
from results.comparison.constants import MARGIN, MIN_PAIRS, MOST_SEEDS
from results.comparison.relation import relation
from results.sweep_result import SweepResult
from results.verdict.arm_comparisons import compare_arms
from results.verdict.decide import SEPARATE_RATE_ROWS
from results.verdict.measure import Measurement, measure
from results.verdict.replicates import Replicates
from search_spaces import GuidelineRow


@dataclass(frozen=True, kw_only=True)
class Wish:
    """Runs that are expected to decide rows."""

    seeds: Mapping[str, int]
    """Arm -> the seeds that it should have."""
    rows: int
    """Statements that wait for just these; 0 where nothing is expected to decide them."""
    runs: int
    """That are missing, those of the best included."""


class RowNeeds:
    """The rows of one sweep, those that say the same once."""

    def __init__(
        self, sweep: SweepResult, expected: Mapping[str, Expected], *, margin: float = MARGIN
    ) -> None:
        """`expected`: arm -> its cost by the sweep alone."""
        self._sweep, self._expected, self._margin = sweep, expected, margin
        rows: dict[object, tuple[GuidelineRow, Measurement]] = {}
        for row in sweep.guidelines:
            found = measure(row, sweep)
            is_tested = found.is_tested or row.id in SEPARATE_RATE_ROWS
            if found.applies and is_tested and row.topic != "stability":
                is_boundary = row.topic == "boundary"
                says = (is_boundary, row.parameter, row.low, row.high, row.choices, row.direction)
                rows.setdefault(says, (row, found))
        self._rows = tuple(rows.values())

    @property
    def statements(self) -> int:
        """Distinct ones that can have an arm."""
        return len(self._rows)

    def wishes(
        self,
        arms: Sequence[Arm],
        runs: Sequence[Replicate] = (),
        taken: Mapping[str, int] | None = None,
        *,
        most_seeds: int = MOST_SEEDS,
        comparisons: int | None = None,
        may_leave_out: bool = False,
    ) -> list[Wish]:
        """What decides each undecided row with the fewest runs, the fewest per row first.

        `taken`: arm -> seeds that it ran on or is running on. `comparisons` is the number of arms that share
        the error rate, all but the best if None. `may_leave_out`: the arms are not chosen yet, so that one
        that a row does not need is taken as absent.
        """
        taken = taken or {}
        replicates = Replicates(arms=list(arms), runs=list(runs), margin=self._margin, most_seeds=most_seeds)
        compared = compare_arms(replicates, self._sweep.context, margin=self._margin)
        best = self._sweep.best
        projection = Projection(
            compared=compared,
            expected=self._expected,
            loss=compared.arms[0].mean or (None if best is None else best.eval_loss) or 1.0,
            comparisons=comparisons or max(1, len(arms) - 1),
        )
        needs, hopeless = Counter[tuple[tuple[str, int], ...]](), list[Mapping[str, int]]()
        for row, measurement in self._rows:
            one = OneRow(row, measurement, self._sweep, projection, most_seeds, taken, may_leave_out)
            if one.is_decided:
                continue
            if (seeds := one.fewest_seeds()) is not None:
                needs[tuple(sorted(seeds.items()))] += 1
            else:
                hopeless.append(one.open_arms())
        if (default := _default_seeds(projection, most_seeds, taken)) is not None:
            needs[tuple(default.items())] += 1
        of_best = taken.get(compared.reference.name, 0)
        found = [
            Wish(seeds=dict(key), rows=rows, runs=_missing(dict(key), taken, of_best))
            for key, rows in needs.items()
        ]
        found.sort(key=lambda wish: wish.runs / wish.rows)
        rest = [Wish(seeds=s, rows=0, runs=_missing(s, taken, of_best)) for s in hopeless if s]
        first = [] if may_leave_out else _default_first(projection, taken)
        return [*first, *found, *rest]


def _default_seeds(
    projection: Projection, most_seeds: int, taken: Mapping[str, int]
) -> dict[str, int] | None:
    """What decides the guideline default, which every answer begins with; None where nothing is needed."""
    name, margin = _default(projection), projection.compared.margin
    if name is None or relation(projection.at(name, taken.get(name, 0)), margin) != "open":
        return None
    for seeds in range(max(taken.get(name, 0) + 1, MIN_PAIRS), most_seeds + 1):
        if relation(projection.at(name, seeds), margin) != "open":
            return {name: seeds}
    return None


def _default_first(projection: Projection, taken: Mapping[str, int]) -> list[Wish]:
    """The guideline default gets an interval, whatever rows wait for."""
    name = _default(projection)
    if name is None or taken.get(name, 0) >= MIN_PAIRS:
        return []
    return [Wish(seeds={name: MIN_PAIRS}, rows=0, runs=2 * (MIN_PAIRS - taken.get(name, 0)))]


def _default(projection: Projection) -> str | None:
    arms = (summary.arm for summary in projection.compared.arms[1:])
    return next((arm.name for arm in arms if arm.role == "guideline_default"), None)


def _missing(seeds: Mapping[str, int], taken: Mapping[str, int], of_best: int) -> int:
    more = sum(count - taken.get(name, 0) for name, count in seeds.items())
    return more + max(0, max(seeds.values()) - of_best)
