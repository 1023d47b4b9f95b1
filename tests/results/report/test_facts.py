"""Timeline, importances and row words, from facts to what is drawn of them."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import optuna
import pytest

from results.hyperparameter_importance import read_importance
from results.report.facts import SeatUse, read_facts
from results.report.plots.seat_timeline import timeline_bars
from results.verdict.verdict import verdict
from tests.results.report.conftest import START, many_trials

Make = Callable[..., Any]


def seat_use(number: int, begin: float, end: float | None, *, seat: int = 0) -> SeatUse:
    return SeatUse(
        number=number,
        worker=0,
        seat=seat,
        start=START + timedelta(seconds=begin),
        end=None if end is None else START + timedelta(seconds=end),
        outcome="running" if end is None else "complete",
    )


def placed(*seat_uses: SeatUse) -> dict[int, tuple[float, float]]:
    bars, _ = timeline_bars(seat_uses)
    return {bar.seat_use.number: (bar.begin, bar.length) for bar in bars}


def test_a_trial_drawn_while_its_seat_was_taken_begins_when_the_seat_is_free() -> None:
    assert placed(seat_use(0, 0, 10), seat_use(1, 4, 25)) == {0: (0, 10), 1: (10, 15)}


def test_a_running_trial_reaches_to_the_last_known_time() -> None:
    assert placed(seat_use(0, 0, 30), seat_use(1, 5, None, seat=1)) == {0: (0, 30), 1: (5, 25)}


def test_a_long_pause_is_cut_out_and_named() -> None:
    bars, pauses = timeline_bars([seat_use(0, 0, 100), seat_use(1, 100_000, 100_050)])
    assert [(bar.begin, bar.length) for bar in bars] == [(0, 100), (100, 50)]
    assert [(pause.at, pause.seconds) for pause in pauses] == [(100, 99_900)]


def test_a_short_gap_is_no_pause() -> None:
    bars, pauses = timeline_bars([seat_use(0, 0, 100), seat_use(1, 101, 200)])
    assert (pauses, bars[1].begin) == ([], 101)


def test_importances_need_trials_enough(make_trial: Make, make_study: Make) -> None:
    few = read_importance(make_study(*(make_trial(2 + n / 99, lr=1e-5 * (n + 1)) for n in range(39))))
    assert (few.shares, few.reason) == (
        {},
        "To say what mattered among 4 hyperparameters takes 40 finished trials; there are 39.",
    )


def test_a_dimension_that_does_nothing_is_called_idle_only_with_trials_enough(make_study: Make) -> None:
    some, many = (read_importance(make_study(*many_trials(n))) for n in (30, 240))
    assert next(iter(many.shares)) == "learning_rate"
    assert sum(many.shares.values()) == pytest.approx(1)
    assert some.negligible == []
    assert "lr_scheduler_type" in many.negligible


def test_equal_losses_have_no_importances(make_trial: Make, make_study: Make) -> None:
    found = read_importance(make_study(*(make_trial(2.0, lr=1e-5 * (n + 1)) for n in range(40))))
    assert found.reason == "All finished trials have the same loss."


def test_a_trial_that_waits_has_no_seat_and_does_not_count_as_ended(
    make_trial: Make, make_study: Make
) -> None:
    study: optuna.Study = make_study(make_trial(2.0))
    study.enqueue_trial({"learning_rate": 1e-4})
    facts = read_facts(study, verdict(study), target=2)
    assert ([s.number for s in facts.seat_uses], facts.num_ended, facts.is_unfinished) == ([0], 1, True)
