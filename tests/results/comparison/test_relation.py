"""What an interval shows against the margin."""

from __future__ import annotations

import pytest

from results.comparison.arms import Arm, Replicate
from results.comparison.noise import guarded_variance
from results.comparison.paired import Comparison, compare_all
from results.comparison.relation import relation


def interval(low: float, high: float, **options) -> Comparison:
    """At a margin of 0.005 of a loss of 2: 0.01."""
    losses = {"other_loss": 2.0, "margin_loss": 2.0} | options
    return Comparison(arm="a", other="best", pairs=8, effect=0.0, low=low, high=high, level=0.99, **losses)


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0.011, 0.03, "worse"),
        (-0.009, 0.009, "within"),
        (-0.02, 0.009, "no_worse"),
        (-0.009, 0.02, "open"),
        (-0.03, -0.011, "better"),
        # Wider than four margins: below zero by a quarter of the width, or it is only no worse.
        (-0.08, -0.011, "no_worse"),
        (-0.08, -0.017, "better"),
    ],
)
def test_an_interval_shows(low, high, expected):
    assert relation(interval(low, high)) == expected


def test_the_margin_is_a_share_of_the_loss_of_the_first_pairs():
    """Later seeds with other losses may not take back what was shown."""
    assert relation(interval(0.011, 0.03, other_loss=4.0)) == "worse"
    assert relation(interval(0.011, 0.03, margin_loss=4.0)) == "open"
    assert relation(interval(0.011, 0.03, margin_loss=None, other_loss=4.0)) == "open"


def test_later_seeds_with_other_losses_do_not_move_the_margin():
    arms = [Arm(name=name, role=role, values={}) for name, role in (("best", "best"), ("a", "row"))]
    runs = []
    for seed in range(8):
        loss = 2.0 if seed < 3 else 3.0
        wobble = 1e-4 * (seed % 2)
        runs += [Replicate(arm="best", seed=seed, eval_loss=loss)]
        runs += [Replicate(arm="a", seed=seed, eval_loss=loss + 0.0115 + wobble)]
    found = compare_all(arms, runs)["a"]
    assert found.margin_loss == pytest.approx(2.0)
    assert found.other_loss == pytest.approx(2.625)
    assert relation(found) == "worse"


def test_a_variance_is_moved_towards_the_typical_one_upwards_only():
    assert guarded_variance(1.0, 6, typical=5.0, added=2) == pytest.approx(2.0)
    assert guarded_variance(5.0, 6, typical=1.0, added=2) == 5.0
    assert guarded_variance(1.0, 6, typical=5.0, added=0) == 1.0
