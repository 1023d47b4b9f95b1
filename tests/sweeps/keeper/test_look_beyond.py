"""A best at an end of its range widens the space, once; an untried side of it gets the next trial."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
from optuna.trial import FrozenTrial, TrialState, create_trial

from results.stored_trials import REPLICATE
from results.sweep_result import read_study
from results.text.limitations import notes
from results.verdict.verdict import verdict
from search_spaces import SearchSpace, space_for
from sweeps.keeper.keeper import Keeper
from sweeps.keeper.sources.look_beyond import look_beyond
from sweeps.study.curve_gp.features import params_of, shares_of
from sweeps.study.edges.open_side import end_reached, open_side
from sweeps.study.edges.widening import Widening, next_widening, widened_space
from sweeps.study.sampling.seen_trials import distribution_of
from tests.sweeps.conftest import build_study_spec

Make = Callable[..., Keeper]
SPACE = space_for(model_size=8.03e9, max_steps=100, train_embeddings=False)
LOW, HIGH = SPACE["learning_rate"].bounds()


def falling(config: Any, percent: int) -> float:
    """Lowest far above the range."""
    return float(5.0 - math.log(config.learning_rate / 1e-5) / 2 + 1.0 / percent)


def narrow(low: float, high: float) -> SearchSpace:
    """`SPACE` with the user's own rates."""
    own = {"learning_rate": {"low": low, "high": high}}
    return space_for(model_size=8.03e9, max_steps=100, train_embeddings=False, overrides=own)


def trial(rate: float, loss: float | None, scheduler: str = "linear", **attributes: Any) -> FrozenTrial:
    wide = SearchSpace.from_dict(SPACE.to_dict())
    params: dict[str, Any] = {"learning_rate": rate, "lr_scheduler_type": scheduler}
    made = create_trial(
        state=TrialState.PRUNED if loss is None else TrialState.COMPLETE,
        value=loss,
        params={},
        distributions={},
        user_attrs=attributes,
    )
    made.distributions = {name: distribution_of(wide[name]) for name in params}
    made.params = params
    return made


def towards(end: float, space: SearchSpace = SPACE, name: str = "learning_rate") -> list[FrozenTrial]:
    """Eight trials, the better the nearer they are to an end of the range, where the last one lies."""
    middle = math.sqrt(math.prod(space[name].bounds()))
    made = []
    for number in range(8):
        one = trial(2e-4, 3.0 - number / 10 + 0.02 * (number % 2))
        one.number, one.params = number, one.params | {name: middle * (end / middle) ** (number / 7)}
        made.append(one)
    made[-1].params[name] = end
    return made


# --- the rules ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("others", "side", "value"),
    [
        ([], "high", 5e-4),
        ([trial(3e-4, None)], "low", 8e-5),
        ([trial(3e-4, 2.5), trial(1e-4, 2.5)], None, None),
        ([trial(2.05e-4, 2.5)], "high", 5e-4),  # no farther than the best itself
        ([trial(3e-4, 2.5, "cosine")], "high", 5e-4),
        ([trial(3e-4, 2.5, origin=REPLICATE)], "high", 5e-4),
    ],
)
def test_the_next_trial_goes_to_the_side_where_nothing_was(
    others: list[FrozenTrial], side: str | None, value: float | None
) -> None:
    found = open_side([trial(2e-4, 2.0), *others], SPACE, "learning_rate")
    assert (None if found is None else found.side) == side
    if found is not None:
        assert found.value == pytest.approx(value)
        assert found.params["lr_scheduler_type"] == "linear"


def test_it_stays_within_the_range_and_an_end_has_no_other_side() -> None:
    near = open_side([trial(HIGH / 1.5, 2.0), trial(1e-4, 3.0)], SPACE, "learning_rate")
    assert near is not None
    assert near.value == HIGH
    assert open_side([trial(HIGH, 2.0), trial(1e-4, 3.0)], SPACE, "learning_rate") is None
    assert open_side([trial(2e-4, None)], SPACE, "learning_rate") is None, "there is no best yet"
    assert end_reached(SPACE["learning_rate"], HIGH) == "high"
    assert end_reached(SPACE["learning_rate"], LOW * 1.1) == "low"
    assert end_reached(SPACE["learning_rate"], 2e-4) is None


def test_an_end_is_moved_once_and_the_other_may_be_too() -> None:
    high = next_widening(towards(HIGH), SPACE, [], finished=8)
    assert high is not None
    assert (high.side, high.before, high.after) == ("high", HIGH, 3 * HIGH)
    wider = widened_space(SPACE, [high])
    assert wider["learning_rate"].bounds() == (LOW, 3 * HIGH)
    assert wider["learning_rate"].note.endswith("; widened by the sweep from 2e-3 to 6e-3")
    assert widened_space(wider, [high]) == wider
    assert next_widening(towards(3 * HIGH), wider, [high], finished=9) is None
    low = next_widening(towards(LOW), wider, [high], finished=9)
    assert low is not None
    assert low.after == pytest.approx(LOW / 3, rel=1e-5)
    assert next_widening(towards(LOW), SPACE, [], finished=9, lowest_rate=LOW / 2) is None, "a minimum"


def test_a_trial_beside_the_best_is_no_repetition_of_it() -> None:
    """An end within the distance that counts as beside could never be tried."""
    space = narrow(1e-4, 1.2e-4)
    assert open_side([trial(1.17e-4, 2.0), trial(1e-4, 3.0)], space, "learning_rate") is None
    failed = trial(5e-4, None)
    failed.state = TrialState.FAIL
    tried = [trial(2e-4, 2.0), trial(1e-4, 3.0)]
    assert open_side(tried, SPACE, "learning_rate") is not None
    assert open_side([*tried, failed], SPACE, "learning_rate") is None


def test_a_range_of_the_users_is_never_exceeded() -> None:
    given = narrow(LOW, 1e-4)  # its low end is the tables'
    assert next_widening(towards(1e-4, given), given, [], finished=9) is None
    assert next_widening(towards(LOW, given), given, [], finished=9) is not None


def test_an_embedding_rate_may_go_above_the_main_one() -> None:
    space = space_for(model_size=8.03e9, max_steps=100, train_embeddings=True)
    found = next_widening(towards(1.0, space, "embedding_lr_ratio"), space, [], finished=8)
    assert found is not None
    assert (found.dimension, found.after) == ("embedding_lr_ratio", 3.0)


def test_a_best_at_an_end_by_chance_moves_nothing() -> None:
    losses = [2.5, 2.2, 2.6, 2.3, 2.4, 2.7, 2.35, 2.0]
    by_chance = towards(HIGH)
    for one, loss in zip(by_chance, losses, strict=True):
        one.values = [loss]
    assert next_widening(by_chance, SPACE, [], finished=8) is None


def simulated_widenings(loss: Callable[[dict[str, float]], float], *, sweeps: int = 40) -> Counter[str]:
    """In how many sweeps of 24 trials, which follow their best ones, each dimension is widened.

    `loss` of a trial's shares (0..1) of the ranges, to which a noise of 0.003 is added.
    """
    space = space_for(model_size=8.03e9, max_steps=100, train_embeddings=True)
    size, rng, found = len(space.dimensions), np.random.default_rng(0), Counter[str]()
    for _ in range(sweeps):
        trials, widened = list[FrozenTrial](), set[str]()
        for number in range(24):
            shares = rng.random(size)
            if number >= 8 and rng.random() < 0.7:
                near = sorted(trials, key=lambda t: t.values[0])[int(rng.integers(3))]
                shares = np.clip(np.array(shares_of(space, near.params)) + rng.normal(0, 0.12, size), 0, 1)
            one = trial(2e-4, loss(dict(zip(space.names, shares, strict=True))) + rng.normal(0, 0.003))
            one.number, one.params = number, params_of(space, shares.tolist())
            trials.append(one)
            if number >= 7 and (wider := next_widening(trials, space, [], finished=number)) is not None:
                widened.add(wider.dimension)
        found.update(widened)
    return found


def test_a_dimension_without_effect_is_hardly_ever_widened_and_one_that_wins_outside_mostly_is() -> None:
    found = simulated_widenings(lambda at: 2 + 0.3 * (1.3 - at["learning_rate"]) ** 2)
    assert found["embedding_lr_ratio"] <= 4
    assert found["learning_rate"] >= 28
    found = simulated_widenings(lambda at: 2 + 0.3 * (0.5 - at["learning_rate"]) ** 2)
    assert found["embedding_lr_ratio"] <= 4
    assert found["learning_rate"] == 0


def studied(trials: list[FrozenTrial], tmp_path: Path) -> tuple[SearchSpace, list[str]]:
    """The space after a look at a sweep of 24 with these trials, and what was noted."""
    spec = replace(build_study_spec(tmp_path, trials=24), space=SPACE)
    study, noted = optuna.create_study(), list[str]()
    study.add_trials(trials)
    return look_beyond(spec, study, noted.append), noted


@pytest.mark.parametrize("finished", [7, 8])
def test_a_third_of_the_trials_finish_first(tmp_path: Path, finished: int) -> None:
    space, noted = studied(towards(HIGH)[-finished:], tmp_path)
    assert bool(noted) == (finished == 8)
    assert space["learning_rate"].high == (3 * HIGH if finished == 8 else HIGH)


def test_frozen_trials_count_as_finished(tmp_path: Path) -> None:
    trials = towards(HIGH)
    for one in trials[:5]:
        one.state, one.values, one.datetime_complete = TrialState.RUNNING, None, None
        one.intermediate_values = {20: 3.0 - one.number / 10}
        one.user_attrs = {"frozen": 20, "outcome": "frozen", "attempt": 1}
    space, _ = studied(trials, tmp_path)
    assert space["learning_rate"].high == 3 * HIGH


# --- in a sweep -----------------------------------------------------------------------------------


def test_a_sweep_goes_on_beyond_an_end_that_wins_also_after_a_kill(
    make_keeper: Make, pack: Any, stored: Any
) -> None:
    """The study stays the same, its readers know the wider range, and it is said."""
    keeper = make_keeper(trials=24)
    simulated = pack(keeper, falling, seats=2)
    simulated.ask()
    while "widened" not in keeper.study.user_attrs:
        simulated.turn()
    keeper = make_keeper(trials=24)  # the first was killed
    pack(keeper, falling, seats=2).run()
    every = [Widening(**moved) for moved in keeper.study.user_attrs["widened"]]
    (widening,) = (each for each in every if each.dimension == "learning_rate")
    assert (widening.dimension, widening.side, widening.before, widening.after) == (
        "learning_rate",
        "high",
        HIGH,
        3 * HIGH,
    )
    assert widening.finished >= 8
    rates = [t.params["learning_rate"] for t in stored(keeper)]
    assert max(rates) > 1.5 * HIGH
    assert len(rates) == 24
    found = read_study(keeper.study)
    assert found.dimensions["learning_rate"].high == 3 * HIGH
    said = (
        f"After {widening.finished} trials the best learning_rate lay at the high end of its range, 2e-3, so "
    )
    assert any(note.startswith(said) for note in notes(verdict(found).limitations, most=9))
    status = keeper.status()
    assert status.widened == [str(each) for each in every]


def test_it_is_told_while_it_happens(make_keeper: Make, pack: Any) -> None:
    keeper = make_keeper(trials=20)
    pack(keeper, falling, seats=2).run()
    events = [event for event in keeper.status().events if "learning_rate" in event]
    assert sum("is searched up to 6e-3 from now on" in event for event in events) == 1


@pytest.mark.parametrize(
    "options", [{"widen_edges": False}, {"sampler": "random"}, {"sampler": "grid", "pruner": "none"}]
)
def test_it_can_be_turned_off_and_chance_stays_chance(
    make_keeper: Make, pack: Any, stored: Any, options: dict[str, Any]
) -> None:
    keeper = make_keeper(trials=14, **options)
    pack(keeper, falling, seats=2).run()
    assert "widened" not in keeper.study.user_attrs
    assert {t.user_attrs["origin"] for t in stored(keeper)} <= {"guideline", "sampler", REPLICATE}


def test_few_trials_go_beside_the_best(make_keeper: Make, pack: Any, stored: Any) -> None:
    keeper = make_keeper(trials=24)
    pack(keeper, falling, seats=1).run()
    beside = [t for t in stored(keeper) if t.user_attrs["origin"] == "beside the best"]
    assert len(beside) <= 3
    for each in beside:
        assert each.user_attrs["label"].startswith(("above the learning_rate", "below the learning_rate"))
