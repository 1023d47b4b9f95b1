"""Each stability sign, on a curve that shows it and on one that does not."""

from __future__ import annotations

import json
import math

import pytest

from lora_runner.stability import Sign, StabilityWatch, repetition

BASE = 3.0
QUIET = [2.0 + 0.01 * (-1) ** i for i in range(12)]


def watched(losses: list[float], *, norm: float = 1.0) -> StabilityWatch:
    watch = StabilityWatch(BASE)
    for step, loss in enumerate(losses, 1):
        watch.after_step(step, loss, norm)
    return watch


def names(watch: StabilityWatch) -> list[str]:
    return [sign.sign for sign in watch.signs]


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_loss_that_is_no_number_ends_the_trial(bad: float) -> None:
    watch = watched([2.0, 1.9, bad])
    assert watch.signs == [Sign("nan_or_inf", 3, f"loss {bad} at step 3")]
    assert watch.diverged == f"loss {bad} at step 3"


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_gradient_that_is_no_number_ends_the_trial(bad: float) -> None:
    watch = watched([2.0], norm=bad)
    assert names(watch) == ["nan_or_inf"]
    assert watch.diverged == f"gradient norm {bad} at step 1"


def test_the_first_reason_to_give_up_is_the_one_that_is_told() -> None:
    watch = watched([2.0, math.nan, math.inf])
    assert watch.diverged == "loss nan at step 2"


def test_an_evaluation_loss_that_is_no_number_ends_the_trial() -> None:
    watch = watched([2.0])
    watch.after_evaluation(1, math.nan)
    assert names(watch) == ["nan_or_inf"]
    assert watch.diverged == "evaluation loss nan at step 1"
    assert watch.evaluations == []


def test_ordinary_training_shows_no_sign() -> None:
    watch = watched([3.0 * 0.97**i + 0.05 * (-1) ** i for i in range(40)])
    watch.after_evaluation(20, 2.4)
    watch.after_evaluation(40, 2.0)
    watch.after_samples(40, [list(range(24))])
    watch.at_end(40)
    assert watch.signs == []
    assert watch.diverged is None


def test_a_jump_above_a_quiet_curve_is_a_spike_and_no_end() -> None:
    watch = watched([*QUIET, 2.9, *QUIET])
    assert [(sign.sign, sign.step) for sign in watch.signs] == [("loss_spike", 13)]
    assert watch.signs[0].detail == "training loss 2.900 after a median of 2.000"
    assert watch.diverged is None


def test_a_loss_that_doubles_is_a_spike_before_the_curve_is_known() -> None:
    watch = watched([2.0, 4.1, 2.0])
    assert watch.signs == [Sign("loss_spike", 2, "training loss 4.100 after at most 2.000")]
    assert watch.diverged is None
    assert watched([2.0, 3.9, 7.7]).signs == []


@pytest.mark.parametrize(
    ("losses", "why"),
    [
        ([*QUIET, 2.3], "many deviations above a quiet curve, but not far"),
        ([2.0, 3.0] * 6 + [3.6], "far above the median, but not beyond what the curve does anyway"),
        ([*QUIET[:9], 2.9], "too early to know the curve"),
        ([*QUIET, 0.5], "downwards"),
    ],
)
def test_what_is_no_spike(losses: list[float], why: str) -> None:
    assert watched(losses).signs == [], why


def test_losses_that_stay_at_twice_the_first_end_the_trial() -> None:
    watch = watched([2.0, *[4.1] * 9])
    assert watch.diverged is not None
    assert watch.diverged.startswith(
        "training loss 4.100 (median of 10 steps) is more than 2 times the first loss 2.000"
    )
    assert names(watch) == ["loss_spike", "loss_spike"]  # when it doubled, and when it stayed high
    assert watched([2.0, *[3.9] * 40]).diverged is None
    assert watched([2.0, *[4.1] * 8]).diverged is None


def evaluated(*seen: tuple[list[float], float]) -> StabilityWatch:
    """(training losses, evaluation loss) of each interval between evaluations."""
    watch, step = StabilityWatch(BASE), 0
    for losses, eval_loss in seen:
        for loss in losses:
            step += 1
            watch.after_step(step, loss, 1.0)
        watch.after_evaluation(step, eval_loss)
    return watch


def test_evaluation_rising_while_training_falls_is_a_sign() -> None:
    watch = evaluated(([2.5, 2.4], 2.5), ([2.0, 1.9], 2.3), ([1.5, 1.4], 2.31), ([1.1, 1.0], 2.4))
    assert [(sign.sign, sign.step) for sign in watch.signs] == [("eval_rises", 8)]
    assert watch.signs[0].detail == (
        "evaluation loss rose from 2.3000 to 2.4000 while training loss fell from 1.9500 to 1.0500"
    )
    assert watch.diverged is None


@pytest.mark.parametrize(
    "seen",
    [
        [([2.5], 2.5), ([2.0], 2.3), ([1.5], 2.32)],  # within the margin of one percent
        [([2.0], 2.3), ([2.2], 2.6)],  # both rise: no overfitting
        [([2.0], 2.3), ([1.5], 2.0)],  # both fall
        [([2.0], 2.9)],  # nothing to compare with
    ],
)
def test_what_is_no_rise(seen: list[tuple[list[float], float]]) -> None:
    assert evaluated(*seen).signs == []


def test_samples_that_repeat_are_a_sign_unless_the_base_repeats_as_much() -> None:
    stuck, varied = [[5, 6] * 12, [7] * 24], [list(range(24)), list(range(30, 54))]
    assert repetition(stuck) == pytest.approx((20 + 21) / 44)
    assert repetition(varied) == 0.0
    for base, samples, expected in (
        (0.0, stuck, ["repetitive_output"]),
        (0.5, stuck, ["repetitive_output"]),
        (0.9, stuck, []),
        (0.0, varied, []),
        (0.0, [[7] * 11], []),  # too short to tell
        (0.0, [], []),
    ):
        watch = StabilityWatch(BASE, base_repetition=base)
        watch.after_samples(9, samples)
        assert names(watch) == expected
    watch = StabilityWatch(BASE)
    watch.after_samples(9, stuck)
    assert watch.signs[0].detail == "93% of the samples' 3-grams repeat (untouched base: 0%)"


@pytest.mark.parametrize(
    ("last", "expected"),
    [
        (BASE, ["barely_changed", "slow_decrease"]),
        (BASE * 0.999, ["barely_changed", "slow_decrease"]),
        (BASE * 1.001, ["barely_changed"]),
        (BASE * 0.99, ["slow_decrease"]),
        (BASE * 0.97, []),
        (BASE * 1.1, []),  # worse than the base: no sign of a low learning rate
    ],
)
def test_too_little_change_over_the_budget_is_a_sign(last: float, expected: list[str]) -> None:
    watch = evaluated(([3.0], BASE * 0.5), ([3.0], last))
    before = len(watch.signs)
    watch.at_end(2)
    assert names(watch)[before:] == expected


def test_a_trial_that_was_never_evaluated_is_not_judged() -> None:
    watch = watched([3.0])
    watch.at_end(1)
    assert watch.signs == []


def test_a_watch_goes_on_from_json_as_if_nothing_had_happened() -> None:
    first = [*QUIET, 2.9, 2.0]
    whole, cut = watched(first), watched(first)
    for watch in (whole, cut):
        watch.after_evaluation(14, 2.2)
        watch.after_step(15, 1.9, 1.0)
    cut = StabilityWatch.from_dict(json.loads(json.dumps(cut.to_dict())))
    assert cut == whole
    for watch in (whole, cut):
        watch.after_step(16, 1.5, 1.0)
        watch.after_evaluation(16, 2.5)
        watch.after_step(17, 9.0, 1.0)
        watch.after_step(18, math.inf, 1.0)
        watch.at_end(18)
    assert cut == whole
    assert names(cut) == ["loss_spike", "eval_rises", "loss_spike", "nan_or_inf"]
    assert StabilityWatch.from_dict(json.loads(json.dumps(cut.to_dict()))).diverged == "loss inf at step 18"


def test_a_watch_without_a_training_step_survives_json() -> None:
    watch = StabilityWatch(BASE)
    watch.after_evaluation(0, 3.0)
    read = StabilityWatch.from_dict(json.loads(json.dumps(watch.to_dict())))
    assert read.evaluations[0][:2] == (0, 3.0)
    assert math.isnan(read.evaluations[0][2])
