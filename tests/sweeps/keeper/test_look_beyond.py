"""A best at an end of its range widens the space, once; an untried side of it gets the next trial."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
from optuna.trial import FrozenTrial, TrialState, create_trial

from results.stored_trials import REPLICATE
from results.sweep_result import read_study
from results.text.limitations import notes
from results.verdict.verdict import verdict
from search_spaces import SearchSpace, space_for
from sweeps.keeper.keeper import Keeper
from sweeps.study.edges.open_side import end_reached, open_side
from sweeps.study.edges.widening import Widening, next_widening, widened_space
from sweeps.study.sampling.seen_trials import distribution_of

Make = Callable[..., Keeper]
SPACE = space_for(model_size=8.03e9, max_steps=100, train_embeddings=False)
LOW, HIGH = SPACE["learning_rate"].bounds()


def falling(config: Any, percent: int) -> float:
    """Lowest far above the range."""
    return float(5.0 - math.log(config.learning_rate / 1e-5) / 2 + 1.0 / percent)


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
    high = next_widening([trial(HIGH, 2.0)], SPACE, [], finished=8)
    assert high is not None
    assert (high.side, high.before, high.after) == ("high", HIGH, 3 * HIGH)
    wider = widened_space(SPACE, [high])
    assert wider["learning_rate"].bounds() == (LOW, 3 * HIGH)
    assert wider["learning_rate"].note.endswith("; widened by the sweep from 2e-3 to 6e-3")
    assert widened_space(wider, [high]) == wider
    assert next_widening([trial(3 * HIGH, 2.0)], wider, [high], finished=9) is None
    low = next_widening([trial(LOW, 2.0)], wider, [high], finished=9)
    assert low is not None
    assert low.after == pytest.approx(LOW / 3, rel=1e-5)
    assert next_widening([trial(LOW, 2.0)], SPACE, [], finished=9, lowest_rate=LOW / 2) is None, "a minimum"


def test_an_embedding_rate_may_go_above_the_main_one() -> None:
    space = space_for(model_size=8.03e9, max_steps=100, train_embeddings=True)
    best = trial(2e-4, 2.0)
    best.params = best.params | {"embedding_lr_ratio": 1.0}
    found = next_widening([best], space, [], finished=8)
    assert found is not None
    assert (found.dimension, found.after) == ("embedding_lr_ratio", 3.0)


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
