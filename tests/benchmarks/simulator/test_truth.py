"""Which words the simulator calls wrong, at costs that are known, and what it counts as lost."""

from __future__ import annotations

import math
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from benchmarks.simulator import shapes
from benchmarks.simulator.scores import is_taken_back, mean, share, statements
from benchmarks.simulator.surface import Surface
from benchmarks.simulator.sweeps import SimulatedSweep, simulate_sweep
from benchmarks.simulator.truth import Truth
from benchmarks.simulator.worlds import WORLDS
from search_spaces import load_guidelines

RATE_ROW = load_guidelines()["scenario.general"]  # 2e-4
BOUNDARY = load_guidelines()["boundary.too_high"]  # 1e-3
BEST = {"learning_rate": 4e-4, "lr_scheduler_type": "linear", "warmup_ratio": 0.05}


def sweep_with(surface: Surface, best: dict[str, Any]) -> SimulatedSweep:
    """A simulated sweep whose best is this configuration."""
    made = simulate_sweep(WORLDS["cliff, noise 0.2%"], np.random.default_rng(0), model_size=8.03e9, trials=4)
    trial = replace(made.sweep.trials[0], params=best, values=best, eval_loss=0.01)
    return replace(made, surface=surface, sweep=replace(made.sweep, trials=[trial]))


def judged(
    surface: Surface, word: str, arms: dict[str, dict[str, Any]], row: Any = RATE_ROW
) -> tuple[bool, bool]:
    """Whether the word is wrong by the program's meaning, and for someone who retunes."""
    simulated = sweep_with(surface, BEST)
    roles = {name: "retuned" if name == "retuned" else "row" for name in arms} | {"best": "best"}
    summaries = [SimpleNamespace(arm=SimpleNamespace(name=name, role=role)) for name, role in roles.items()]
    look: Any = SimpleNamespace(verdict=SimpleNamespace(replicates=SimpleNamespace(arms=summaries)))
    found: Any = SimpleNamespace(row=row, word=word, by_default=False)
    truth = Truth(simulated, {"best": BEST, **arms}, 0.5)
    return truth.is_wrong(found, look), truth.is_wrong_for_retuner(found, look)


def surface_of(percent_per_square_decade: float, **more: Any) -> Surface:
    return Surface(shape=shapes.bowl(curvature=percent_per_square_decade), log_rate=math.log10(4e-4), **more)


def at(rate: float, **more: Any) -> dict[str, dict[str, Any]]:
    return {"arm": {**BEST, "learning_rate": rate, **more}}


DECADES = math.log10(2.0) ** 2
"""Of the table's 2e-4 below the best's 4e-4, squared."""


@pytest.mark.parametrize(
    ("cost", "right"),
    [
        (0.6, {"too_low"}),
        (0.4, {"no_worse", "no_difference"}),
        (-0.4, {"no_worse", "no_difference"}),
        (-0.6, {"no_worse", "supported"}),
    ],
)
def test_a_word_of_a_value_is_right_on_its_side_of_the_margin(cost: float, right: set[str]) -> None:
    """The table's 2e-4 beside a best of 4e-4; where the cost is negative, 2e-4 is the lowest."""
    surface = surface_of(abs(cost) / DECADES)
    if cost < 0:
        # The best then lies above the lowest: percent of its own loss.
        surface = replace(surface, log_rate=math.log10(2e-4))
    words = ("too_low", "too_high", "supported", "no_worse", "no_difference")
    assert {word for word in words if not judged(surface, word, at(2e-4))[0]} == right


def test_a_trial_of_the_sweep_inside_the_row_speaks_for_it() -> None:
    """Alone the value costs 2%; beside `constant`, as a trial of the sweep had it, nothing."""
    moved = surface_of(2 / DECADES, scheduler_shift=(0.0, -math.log10(2.0), 0.0))
    trial = {"learning_rate": 2e-4, "lr_scheduler_type": "constant"}
    arms = at(2e-4) | {"retuned": trial}
    assert judged(moved, "too_low", arms)[0]
    assert not judged(moved, "no_difference", arms)[0]
    assert not judged(moved, "no_worse", arms)[0]


def test_a_value_below_the_best_is_never_too_high() -> None:
    assert judged(surface_of(2 / DECADES), "too_high", at(2e-4))[0]


def test_an_arm_that_differs_elsewhere_too_says_nothing() -> None:
    """The word rests on no arm, so that it cannot be right."""
    assert judged(surface_of(2 / DECADES), "too_low", at(2e-4, warmup_ratio=0.1))[0]
    assert not judged(surface_of(2 / DECADES), "too_low", at(2e-4))[0]


def test_who_retunes_the_scheduler_may_find_the_value_good_enough() -> None:
    """Under `constant` the best rate is the table's, at no cost of its own."""
    moved = surface_of(2 / DECADES, scheduler_shift=(0.0, -math.log10(2.0), 0.0))
    assert judged(moved, "too_low", at(2e-4)) == (False, True)
    assert judged(replace(moved, scheduler_cost=(0.0, 0.6, 0.0)), "too_low", at(2e-4)) == (False, False)
    assert judged(moved, "supported", at(2e-4))[1] is False, "only refuted values are retuned"


def test_a_boundary_is_supported_rightly_where_its_value_costs_more() -> None:
    decades = math.log10(1e-3 / 4e-4) ** 2
    costly, cheap = surface_of(0.6 / decades), surface_of(0.4 / decades)
    assert judged(costly, "supported", at(1e-3), BOUNDARY) == (False, False)
    assert judged(cheap, "supported", at(1e-3), BOUNDARY) == (True, True)
    assert judged(cheap, "too_low", at(1e-3), BOUNDARY) == (False, False)
    assert judged(costly, "too_low", at(1e-3), BOUNDARY)[0]


def test_a_scheduler_that_is_better_refutes_the_best_s() -> None:
    row = load_guidelines()["scheduler.short"]  # linear or constant
    better = surface_of(1.0, scheduler_cost=(0.6, 1.0, 0.0))
    other = {"arm": {**BEST, "lr_scheduler_type": "cosine"}}
    assert not judged(better, "not_supported", other, row)[0]
    assert judged(better, "supported", other, row)[0]
    worse = surface_of(1.0, scheduler_cost=(0.0, 1.0, 0.6))
    assert judged(worse, "not_supported", other, row)[0]
    assert not judged(worse, "supported", other, row)[0]


def test_a_word_is_lost_unless_a_later_one_says_more_of_the_same() -> None:
    assert is_taken_back("too_low", "undecided")
    assert is_taken_back("too_low", "supported")
    assert is_taken_back("supported", "undecided")
    assert not is_taken_back("too_low", "too_low")
    assert not is_taken_back("no_worse", "no_difference")
    assert not is_taken_back("no_worse", "supported")


def test_rows_that_say_the_same_are_one_statement() -> None:
    rows: Any = [
        SimpleNamespace(row=load_guidelines()[name], word="too_low")
        for name in ("scenario.general", "method.qlora")
    ]
    rows.append(SimpleNamespace(row=load_guidelines()["size.1-3b"], word="undecided"))
    assert statements(rows) == ["too_low", "undecided"]


def test_errors_are_those_of_a_mean_over_sweeps() -> None:
    rate = share([True] * 5 + [False] * 95, bool)  # type: ignore[arg-type, list-item]
    assert (rate.value, round(rate.error, 4)) == (0.05, 0.0218)
    assert share([False] * 100, bool).error > 0  # type: ignore[arg-type, list-item]
    assert mean([1.0, 3.0]).value == 2.0
    assert rate.is_above(0.0)
    assert not rate.is_above(0.02)
