"""Whether a word on a row is wrong: by the program's own meaning, and for someone who retunes the rest.

A cost is the expected loss of a configuration minus that of the sweep's best, in percent of the best's. By
the program's own meaning a row's value has everything else from the best; these configurations are arms of
the confirmation. For someone who retunes, a row costs the least that any configuration of the space inside it
costs: it is refuted wrongly where that is within the margin.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from benchmarks.simulator.confirmations import Look
from benchmarks.simulator.space_grid import CLOSE, grid_costs, space_values, where_inside
from benchmarks.simulator.surface import Surface
from benchmarks.simulator.sweeps import SimulatedSweep
from results.verdict.decide import SEPARATE_RATE_ROWS
from results.verdict.row_verdict import RowVerdict
from search_spaces import GuidelineRow

REFUTED = frozenset({"too_low", "too_high", "not_supported"})
NO_CLAIM = frozenset({"undecided", "not_tested"})
TOLERATED_LOSS_RATE = 0.1
"""Runs of an arm that may end early; more of them are a true reason to call a value too high."""


@dataclass(frozen=True)
class ArmTruth:
    """One arm beside the best."""

    value: Any
    """Of the row's parameter."""
    cost: float
    """Percent of the best's loss."""
    loses_runs: bool
    is_above_best: bool = False
    """Whether its value is higher than the best's."""

    def costs_more(self, margin: float) -> bool:
        return self.loses_runs or self.cost > margin


class Truth:
    """What is true of a simulated sweep and the arms of its confirmation; margins in percent."""

    def __init__(
        self, simulated: SimulatedSweep, arms: Mapping[str, Mapping[str, Any]], margin: float
    ) -> None:
        self._simulated = simulated
        self._margin = margin
        self._arms = arms
        best = simulated.sweep.best
        assert best is not None
        self._best = dict(best.params)
        self._best_loss = simulated.surface.loss(self._best)

    def cost_of(self, params: Mapping[str, Any]) -> float:
        """Percent of the best's loss."""
        return 100 * (self._simulated.surface.loss(params) / self._best_loss - 1)

    def is_wrong(self, found: RowVerdict, look: Look) -> bool:
        """Whether the row's word is wrong by the program's own meaning."""
        if found.word in NO_CLAIM:
            return False
        row, margin = found.row, self._margin
        roles = _roles(look)
        if row.id in SEPARATE_RATE_ROWS and "one_rate" in roles.values():
            one = next(name for name, role in roles.items() if role == "one_rate")
            return self._is_separate_word_wrong(found.word, self._arm(one))
        if found.by_default:
            return self._is_default_word_wrong(found, roles)
        own, outside, retuned = self._arms_of(row, roles)
        best = self._value(self._best, row)
        if row.topic == "boundary":
            return self._is_boundary_word_wrong(row, found.word, [*own, *retuned], outside, best)
        if _holds(row, best):
            return self._is_word_of_best_wrong(
                found.word, [*own, *retuned], outside, is_name=bool(row.choices)
            )
        end = [arm for arm in own if _is_nearest_end(row, arm.value, best)]
        cheapest = min((arm.cost for arm in [*own, *retuned] if not arm.loses_runs), default=math.inf)
        match found.word:
            case "too_low" | "too_high" | "not_supported":
                above = not row.choices and float(best) > arm_end(row, best)
                fits = bool(row.choices) or (found.word == "too_low") == above
                refuting = [*end, *retuned]
                return not (fits and bool(end) and all(arm.costs_more(margin) for arm in refuting))
            case "supported":
                return cheapest >= -margin
            case "no_worse":
                return cheapest > margin
            case "no_difference":
                return abs(cheapest) > margin
        raise ValueError(f"no meaning is known of the word {found.word!r}")

    def is_wrong_for_retuner(self, found: RowVerdict, look: Look) -> bool:
        """Whether a value is refuted that costs at most the margin once the rest is retuned at will."""
        reference = self._reference(found, look)
        if reference is None or not isinstance(self._simulated.surface, Surface):
            return False
        return self.retuned_cost(found.row) - reference <= self._margin

    def is_wrong_by_trials(self, found: RowVerdict, look: Look) -> bool:
        """Whether a value is refuted that a finished trial of the sweep has at no more than the margin."""
        reference = self._reference(found, look)
        if reference is None:
            return False
        costs = [
            self.cost_of(trial.params)
            for trial in self._simulated.sweep.finished
            if _holds(found.row, trial.values.get(found.row.parameter or ""))
        ]
        return min(costs, default=math.inf) - reference <= self._margin

    def _reference(self, found: RowVerdict, look: Look) -> float | None:
        """The cost that a refuted row is compared with; None where the word refutes nothing.

        A row that holds the best is refuted by a better arm outside of it. A boundary row refutes its value
        when it is supported.
        """
        row = found.row
        refuted = found.word == "supported" if row.topic == "boundary" else found.word in REFUTED
        if not refuted or row.id in SEPARATE_RATE_ROWS:
            return None
        if row.topic == "boundary" or not _holds(row, self._value(self._best, row)):
            return 0.0
        _, outside, _ = self._arms_of(row, _roles(look))
        return min((arm.cost for arm in outside if not arm.loses_runs), default=0.0)

    def retuned_cost(self, row: GuidelineRow) -> float:
        """Least cost of any configuration of the space inside the row, in percent of the best's loss."""
        values, costs = self._grid
        inside = where_inside(row, values)
        if inside is None or not inside.any():
            return math.inf
        surface = self._simulated.surface
        return float(100 * (surface.base_loss * (1 + costs[inside].min() / 100) / self._best_loss - 1))

    # --- by the program's own meaning -------------------------------------------------------------

    def _is_separate_word_wrong(self, word: str, one: ArmTruth) -> bool:
        """The row wants two rates; the arm has one for all."""
        match word:
            case "supported":
                return not one.costs_more(self._margin)
            case "no_difference":
                return one.loses_runs or abs(one.cost) > self._margin
            case "no_worse":  # two rates than one
                return one.cost < -self._margin
            case _:
                return one.costs_more(self._margin)

    def _is_default_word_wrong(self, found: RowVerdict, roles: Mapping[str, str]) -> bool:
        name = next(name for name, role in roles.items() if role == "guideline_default")
        default = self._arm(name)
        if found.word not in REFUTED:
            return default.costs_more(self._margin)
        # Refuted: neither the default nor any trial of the sweep inside the row comes within the margin.
        tried = [
            self.cost_of(trial.params)
            for trial in self._simulated.sweep.finished
            if _holds(found.row, trial.values.get(found.row.parameter or ""))
        ]
        return not default.costs_more(self._margin) or min(tried, default=math.inf) <= self._margin

    def _is_boundary_word_wrong(
        self, row: GuidelineRow, word: str, at_value: list[ArmTruth], outside: list[ArmTruth], best: Any
    ) -> bool:
        """Supported: the value costs more than a best on the good side of it, or the best more than a value
        there. Else the boundary is misplaced."""
        too_high = row.direction != "too_low"
        low = float(row.low or 0)

        def is_beyond(value: Any) -> bool:
            return float(value) >= low * (1 - CLOSE) if too_high else float(value) <= low * (1 + CLOSE)

        beyond = [*at_value, *(arm for arm in outside if is_beyond(arm.value))]
        costs = bool(beyond) and all(arm.costs_more(self._margin) for arm in beyond)
        if is_beyond(best):
            good_side = [arm for arm in outside if not is_beyond(arm.value)]
            costs = any(arm.cost < -self._margin for arm in good_side)
        return costs != (word == "supported")

    def _is_word_of_best_wrong(
        self, word: str, own: list[ArmTruth], outside: list[ArmTruth], *, is_name: bool
    ) -> bool:
        """The row holds the best's value, so that arms outside of it test it."""
        margin = self._margin
        better = [arm for arm in outside if not arm.loses_runs and arm.cost < -margin]
        within = [arm for arm in outside if not arm.loses_runs and abs(arm.cost) <= margin]
        worse = [arm for arm in outside if arm.costs_more(margin)]
        match word:
            case "too_low" | "too_high":
                return not any(arm.is_above_best == (word == "too_low") for arm in better)
            case "not_supported":
                return not better
            case "supported":
                return bool(better) or not worse or (is_name and bool(within))
            case "no_worse":
                # Also one of the sweep's own trials: it holds the row's value at no more than the margin.
                inside = [arm for arm in own if not arm.costs_more(margin)]
                return bool(better) or not (outside or inside)
            case "no_difference":
                return bool(better) or not within or (not is_name and bool(worse))
        raise ValueError(f"no meaning is known of the word {word!r}")

    def _arms_of(
        self, row: GuidelineRow, roles: Mapping[str, str]
    ) -> tuple[list[ArmTruth], list[ArmTruth], list[ArmTruth]]:
        """Arms that differ from the best in the row's parameter alone, inside the row and outside; and those
        inside that are the sweep's own trials, with settings of their own."""
        own, outside, retuned = [], [], []
        for name, params in self._arms.items():
            value = self._value(params, row)
            if roles.get(name) == "one_rate" or value is None:
                continue
            if self._differs_only_in(row, params):
                (own if _holds(row, value) else outside).append(self._arm(name, value, row))
            elif roles.get(name) == "retuned" and _holds(row, value):
                retuned.append(self._arm(name, value, row))
        return own, outside, retuned

    def _arm(self, name: str, value: Any = None, row: GuidelineRow | None = None) -> ArmTruth:
        params, surface = self._arms[name], self._simulated.surface
        share = self._simulated.world.noise.share_diverging(surface.decades_above_cliff(params))
        best = None if row is None else self._value(self._best, row)
        is_above = isinstance(best, int | float) and isinstance(value, int | float) and value > best
        return ArmTruth(value, self.cost_of(params), share > TOLERATED_LOSS_RATE, is_above)

    def _differs_only_in(self, row: GuidelineRow, params: Mapping[str, Any]) -> bool:
        base = {"embedding_learning_rate": "embedding_lr_ratio", "warmup_steps": "warmup_ratio"}
        of_row = base.get(row.parameter or "", row.parameter)
        differing = {
            name for name in params.keys() & self._best.keys() if not _same(params[name], self._best[name])
        }
        if of_row == "learning_rate" and "embedding_lr_ratio" in differing:
            rates = [float(p["learning_rate"]) * float(p["embedding_lr_ratio"]) for p in (params, self._best)]
            if _same(*rates):
                differing.discard("embedding_lr_ratio")
        return differing == {of_row}

    def _value(self, params: Mapping[str, Any], row: GuidelineRow) -> Any:
        values = dict(params)
        if "embedding_lr_ratio" in values:
            values["embedding_learning_rate"] = float(values["learning_rate"]) * float(
                values["embedding_lr_ratio"]
            )
        if "warmup_ratio" in values:
            values["warmup_steps"] = self._simulated.study_spec.trial_config(params).warmup_steps
        return values.get(row.parameter or "")

    # --- for someone who retunes ------------------------------------------------------------------

    @cached_property
    def _grid(self) -> tuple[dict[str, Any], np.ndarray[Any, Any]]:
        """Values of the whole space, broadcast against each other, and their costs above the base loss.

        Infinite where more runs end early than a value may lose.
        """
        surface = self._simulated.surface
        assert isinstance(surface, Surface)
        space, rows = self._simulated.study_spec.space, self._simulated.sweep.guidelines
        values = space_values(space, rows, self._best, surface.best_rank)
        above = surface.decades(
            *(values[name] for name in ("learning_rate", "scheduler", "warmup_ratio", "lora_r"))
        )
        loses_runs = self._simulated.world.noise.shares_diverging(above - surface.shape.cliff)
        costs = grid_costs(surface, values)
        return values, np.where(loses_runs > TOLERATED_LOSS_RATE, math.inf, costs)


def arm_end(row: GuidelineRow, best: Any) -> float:
    """The end of a row's range that lies nearest to the best."""
    assert row.low is not None
    assert row.high is not None
    return row.low if float(best) < row.low else row.high


def _roles(look: Look) -> dict[str, str]:
    """Arm -> its role."""
    replicates = look.verdict.replicates
    return {} if replicates is None else {found.arm.name: found.arm.role for found in replicates.arms}


def _is_nearest_end(row: GuidelineRow, value: Any, best: Any) -> bool:
    return bool(row.choices) or _same(value, arm_end(row, best))


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, str) or isinstance(other, str):
        return bool(one == other)
    return abs(one - other) <= CLOSE * max(abs(one), abs(other))


def _holds(row: GuidelineRow, value: Any) -> bool:
    if row.choices:
        return value in row.choices
    if value is None or row.low is None or row.high is None:
        return False
    return bool(row.low * (1 - CLOSE) <= float(value) <= row.high * (1 + CLOSE))
