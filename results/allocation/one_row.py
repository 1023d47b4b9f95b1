"""One guideline row under what its arms are expected to show: the fewest seeds that decide it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from results.allocation.projection import Projection
from results.comparison.constants import MIN_PAIRS
from results.comparison.relation import relation
from results.sweep_result import SweepResult
from results.verdict.decide import SEPARATE_RATE_ROWS, finding_of
from results.verdict.measure import Measurement
from results.verdict.row_tests import tests_of
from results.words.words import CLAIMS
from search_spaces import GuidelineRow


class OneRow:
    """A row, its arms and the seeds that they have by now."""

    def __init__(
        self,
        row: GuidelineRow,
        measurement: Measurement,
        sweep: SweepResult,
        projection: Projection,
        most_seeds: int,
        taken: Mapping[str, int],
        may_leave_out: bool,
    ) -> None:
        self._row, self._measurement, self._sweep = row, measurement, sweep
        self._projection, self._most, self._taken = projection, most_seeds, taken
        self._may_leave_out = may_leave_out

    @property
    def is_decided(self) -> bool:
        """Whether it has a word once what is running has ended."""
        return not self._may_leave_out and self._has_word({})

    def fewest_seeds(self) -> dict[str, int] | None:
        """Arm -> seeds; None where the most seeds are not expected to decide the row."""
        names = [name for name in self._arms() if self._taken.get(name, 0) < self._most]
        if not names or not self._has_word(dict.fromkeys(names, self._most)):
            return None
        # What is left out first depends on the order, so both are tried.
        options = [self._without_needless(order) for order in (names, names[::-1])]
        return min(options, key=lambda seeds: sum(seeds.values()) - sum(map(self._has, seeds)))

    def open_arms(self) -> dict[str, int]:
        """The arms that have no relation to the best yet, each with the most seeds."""
        compared = self._projection.compared
        return {
            name: self._most
            for name in self._arms()
            if self._has(name) < self._most
            and relation(compared.comparisons[name], compared.margin) == "open"
        }

    def _has(self, name: str) -> int:
        return self._taken.get(name, 0)

    def _arms(self) -> list[str]:
        compared = self._projection.compared
        if self._row.id in SEPARATE_RATE_ROWS:
            return [summary.arm.name for summary in compared.arms if summary.arm.role == "one_rate"]
        tests = tests_of(self._row, self._sweep, compared)
        values = [value.comparison for value in (*tests.own, *tests.outside)]
        return list(dict.fromkeys(comparison.arm for comparison in (*values, *tests.retuned)))

    def _has_word(self, seeds: Mapping[str, int]) -> bool:
        """Whether the row is decided with these seeds, and no more of the others."""
        compared = self._projection.compared
        comparisons = {
            name: self._projection.at(name, seeds.get(name, self._has(name)))
            for name in compared.comparisons
            if name in seeds or not self._may_leave_out
        }
        arms = [
            summary
            for summary in compared.arms
            if summary.arm.name in comparisons or summary.arm is compared.reference
        ]
        later = replace(compared, arms=arms, comparisons=comparisons)
        found = finding_of(self._row, self._measurement, self._sweep, later)
        return found is not None and found.word in CLAIMS

    def _without_needless(self, order: Sequence[str]) -> dict[str, int]:
        """The most seeds of each arm, then arm by arm as few as still decide the row."""
        seeds = dict.fromkeys(order, self._most)
        for name in order:
            without = {other: count for other, count in seeds.items() if other != name}
            if self._has_word(without):
                seeds = without
                continue
            few, many = max(self._has(name), MIN_PAIRS - 1), self._most
            while many - few > 1:
                middle = (few + many) // 2
                few, many = (few, middle) if self._has_word(seeds | {name: middle}) else (middle, many)
            seeds[name] = many
        return seeds
