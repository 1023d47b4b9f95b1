"""Comparisons, relations and the stopping rule, each checked by independent arithmetic."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from results.comparison.arms import Arm, Replicate, reference
from results.comparison.constants import ALPHA, INTERVAL_SHARE, MARGIN
from results.comparison.paired import compare, compare_all
from results.comparison.relation import relation
from results.comparison.stopping import is_clear
from results.comparison.thresholds import look_level
from results.render.json_data import comparison_data
from results.words.word_rules import value_word

ARMS = [
    Arm(name="best", role="best", values={"learning_rate": 2e-4}),
    Arm(name="row", role="row", values={"learning_rate": 1e-3}, rows=("scenario.general",)),
    Arm(name="default", role="guideline_default", values={"learning_rate": 1e-4}),
]


def runs(arm: str, losses: list[float | None], outcome: str = "") -> list[Replicate]:
    return [
        Replicate(arm=arm, seed=seed, eval_loss=loss, outcome=outcome if loss is None else "complete")
        for seed, loss in enumerate(losses)
    ]


OURS, THEIRS = [2.10, 2.13, 2.08, 2.15, 2.11, 2.14], [2.00, 2.05, 2.01, 2.04, 2.03, 2.07]


def t_interval(pairs: int, share: float) -> tuple[float, float]:
    """By scipy's own paired test."""
    found = stats.ttest_rel(OURS[:pairs], THEIRS[:pairs]).confidence_interval(1 - share)
    return float(found.low), float(found.high)


def test_the_interval_is_what_paired_t_intervals_at_all_looks_intersect():
    """A pair alone has no other arms' variance, and its levels are those of the design."""
    found = compare("a", "b", runs("a", OURS) + runs("b", THEIRS), comparisons=4)
    looks = [t_interval(pairs, 2 * look_level(pairs, 4)) for pairs in (3, 4, 5, 6)]
    assert found.low == pytest.approx(max(low for low, _ in looks))
    assert found.high == pytest.approx(min(high for _, high in looks))
    assert found.level == pytest.approx(1 - 2 * ALPHA * INTERVAL_SHARE / 4)
    assert found.effect == pytest.approx(np.mean(OURS) - np.mean(THEIRS))
    assert found.percent(found.effect) == pytest.approx(100 * found.effect / np.mean(THEIRS))


def test_looking_again_never_widens_an_interval_nor_takes_a_word_back():
    generator = np.random.default_rng(4)
    for _ in range(50):
        ours, theirs = list(2.05 + generator.normal(0, 0.003, 12)), list(2.0 + generator.normal(0, 0.003, 12))
        found = [
            compare("a", "b", runs("a", ours[:n]) + runs("b", theirs[:n]), comparisons=5)
            for n in range(3, 13)
        ]
        words = [value_word(comparison, side="below") for comparison in found]
        assert words[-1] == "too_low"
        assert words == sorted(words, key=lambda word: word != "undecided")


def test_what_has_been_shown_stands_when_later_runs_contradict_it():
    jump = [0.1, 0.1000001, 0.0999999, 0.1, 0.1, 0.1] + [-5.0 + 0.01 * k for k in range(20)]
    found = compare("a", "b", runs("a", [2.0 + d for d in jump]) + runs("b", [2.0] * len(jump)))
    assert found.contradicted
    assert relation(found) == "worse"
    assert 0.09 < found.low <= found.high < 0.11
    assert not compare("a", "b", runs("a", OURS) + runs("b", THEIRS)).contradicted


def test_pairs_are_by_seed_whatever_the_order_and_single_runs_count_nowhere():
    replicates = [
        Replicate(arm="a", seed=7, eval_loss=3.0),
        Replicate(arm="b", seed=1, eval_loss=1.0),
        Replicate(arm="a", seed=1, eval_loss=1.5),
        Replicate(arm="b", seed=9, eval_loss=9.0),
        Replicate(arm="b", seed=7, eval_loss=2.0),
    ]
    found = compare("a", "b", replicates)
    assert (found.pairs, found.effect, found.low) == (2, 0.75, None)
    assert relation(found) == "open"


@pytest.mark.parametrize("pairs", [0, 1, 2])
def test_below_three_pairs_nothing_is_ever_claimed(pairs):
    found = compare("a", "b", runs("a", [9.0] * pairs) + runs("b", [1.0] * pairs))
    assert (found.low, found.high) == (None, None)
    for side in ("above", "below", "equal", "other"):
        assert value_word(found, side=side) == "undecided"


def test_losses_that_are_no_numbers_are_lost_runs_not_losses():
    replicates = runs("a", [math.nan, math.inf, 1e300, 2.0, 2.0, 2.0]) + runs("b", [2.0] * 6)
    found = compare("a", "b", replicates)
    assert (found.pairs, found.lost) == (3, 3)


def test_an_arm_that_has_lost_a_run_is_not_called_the_same_nor_better():
    same = compare("a", "b", runs("a", [None] + [2.0] * 5) + runs("b", [2.0] * 6))
    better = compare("a", "b", runs("a", [None] + [1.0] * 5) + runs("b", [2.0] * 6))
    unstable_best = compare("a", "b", runs("a", [2.0] * 6) + runs("b", [None] + [2.0] * 5))
    assert [relation(found) for found in (same, better, unstable_best)] == ["open"] * 3
    worse = compare("a", "b", runs("a", [None] + [2.5] * 5) + runs("b", [2.0] * 6))
    assert relation(worse) == "worse"


def test_a_run_lost_later_takes_no_word_back():
    same = compare("a", "b", runs("a", [2.0] * 5 + [None]) + runs("b", [2.0] * 6))
    assert (relation(same), same.lost) == ("within", 1)
    unstable_best = compare("a", "b", runs("a", [1.0] * 6) + runs("b", [2.0] * 5 + [None]))
    assert (relation(unstable_best), unstable_best.other_lost) == ("better", 1)


def test_few_lost_runs_or_lost_runs_of_the_best_too_are_no_proof():
    one = compare("row", "best", runs("row", [None, 2.0, 2.0, 2.0]) + runs("best", [2.0] * 4))
    both = compare("row", "best", runs("row", [None] * 6) + runs("best", [None] + [2.0] * 5))
    assert not one.loses_runs
    assert not both.loses_runs


@pytest.mark.parametrize("outcome", ["out_of_memory", "failed"])
def test_memory_and_machines_say_nothing_about_a_rate(outcome):
    found = compare("row", "best", runs("row", [None] * 6, outcome) + runs("best", [2.0] * 6))
    assert (found.lost, found.loses_runs) == (0, False)
    assert value_word(found, side="above") == "undecided"


def test_the_reference_is_the_first_best_and_every_other_arm_is_compared_with_it():
    second = Arm(name="second", role="best", values={})
    arms = [ARMS[1], ARMS[0], second]
    assert reference(arms).name == "best"
    replicates = [run for arm in arms for run in runs(arm.name, [2.0, 2.1, 2.2])]
    found = compare_all(arms, replicates)
    assert {name: c.other for name, c in found.items()} == {"row": "best", "second": "best"}
    assert found["row"].level == pytest.approx(1 - 2 * ALPHA * INTERVAL_SHARE / 2)
    with pytest.raises(ValueError, match="best"):
        reference([ARMS[1]])


def clear_round(seed: int) -> list[Replicate]:
    losses = {"best": 2.0, "row": 3.0, "default": 2.5}
    wobble = {"best": 0.0, "row": 1e-4 * (seed % 3), "default": -1e-4 * (seed % 2)}
    return [Replicate(arm=name, seed=seed, eval_loss=loss + wobble[name]) for name, loss in losses.items()]


def test_it_is_clear_after_three_full_rounds_and_not_before():
    rounds = [clear_round(seed) for seed in range(3)]
    assert not is_clear(ARMS, [*rounds[0], *rounds[1]])
    assert not is_clear(ARMS, [*rounds[0], *rounds[1], *rounds[2][:2]])  # the third round lacks an arm
    assert is_clear(ARMS, [*rounds[0], *rounds[1], *rounds[2]])


def test_runs_of_an_unfinished_round_change_nothing():
    rounds = list(itertools.chain.from_iterable(clear_round(seed) for seed in range(3)))
    stray = Replicate(arm="row", seed=99, eval_loss=None)
    assert is_clear(ARMS, [*rounds, stray])


def test_it_is_not_clear_while_one_arm_is_open():
    generator = np.random.default_rng(1)
    noisy = [
        Replicate(arm=arm.name, seed=seed, eval_loss=2.0 + float(generator.normal(0, 0.1)))
        for seed in range(6)
        for arm in ARMS
    ]
    assert not is_clear(ARMS, noisy)
    assert not is_clear([], [])


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["best", "row", "default"]),
            st.integers(0, 5),
            st.none() | st.floats(allow_nan=True, allow_infinity=True),
        ),
        max_size=30,
    )
)
def test_any_replicates_give_words_and_no_error(found):
    replicates = [Replicate(arm=arm, seed=seed, eval_loss=loss) for arm, seed, loss in found]
    is_clear(ARMS, replicates)
    for comparison in compare_all(ARMS, replicates).values():
        comparison_data(comparison)
        if comparison.low is None and not comparison.loses_runs:
            assert value_word(comparison, side="above", margin=MARGIN) == "undecided"
