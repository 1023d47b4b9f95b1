"""The values within the margin of the best, and what lies beyond: of trials that differ in nothing else."""

from __future__ import annotations

from typing import Any

import pytest

from results.effects.value_effects import ValueEffects
from results.sweep_result import SweepResult, TrialResult
from results.text.comparisons import band_advice, band_text
from results.verdict.band import Band, band_of
from search_spaces import Dimension
from search_spaces.dimension import Value

RATES = [(1e-5, 2.2), (5e-5, 2.02), (1e-4, 2.005), (2e-4, 2.0), (4e-4, 2.008), (1e-3, 2.5)]
DIMENSIONS = (
    Dimension(name="learning_rate", kind="float", low=1e-5, high=1e-2, log=True, default=2e-4),
    Dimension(
        name="lr_scheduler_type",
        kind="categorical",
        choices=("linear", "cosine", "constant"),
        default="linear",
    ),
    Dimension(
        name="warmup_ratio",
        kind="float",
        low=0.0,
        high=0.5,
        default=0.1,
        active_when=("lr_scheduler_type", ("linear", "cosine")),
    ),
)


def sweep(*trials: dict[str, Any]) -> SweepResult:
    """Trials of 20 steps, each as its values and its loss."""
    results = []
    for number, changed in enumerate(trials):
        values: dict[str, Value] = {"learning_rate": 2e-4, "lr_scheduler_type": "linear", "max_steps": 20}
        values |= {name: value for name, value in changed.items() if name != "loss"}
        results.append(
            TrialResult(number=number, values=values, eval_loss=changed["loss"], outcome="complete")
        )
    dimensions = {found.name: found for found in DIMENSIONS}
    return SweepResult(
        name="made", metric="eval_loss", trials=results, dimensions=dimensions, guidelines=(), context={}
    )


def band(parameter: str, *trials: dict[str, Any], noise: float = 0.0, has_model: bool = False) -> Band:
    effects = ValueEffects(sweep(*trials), has_model=has_model)
    found = band_of(parameter, effects, margin=0.005, noise=noise)
    assert found is not None
    return found


def rates(*points: tuple[float, float], **settings: Any) -> list[dict[str, Any]]:
    return [{"learning_rate": rate, "loss": loss} | settings for rate, loss in points]


def test_the_band_is_the_hull_of_the_values_within_the_margin() -> None:
    found = band("learning_rate", *rates(*RATES))
    assert (found.low, found.high) == (1e-4, 4e-4)
    assert (found.beyond_low, found.beyond_high) == (5e-5, 1e-3)
    assert (found.best, found.num_within, found.num_trials) == (2e-4, 3, 6)
    assert band_text(found) == "1e-4 to 4e-4 (outside: 5e-5 and 1e-3)"


def test_of_a_rate_the_low_end_is_advised_and_of_warmup_neither() -> None:
    assert "take 1e-4 to 2e-4, not more" in band_advice(band("learning_rate", *rates(*RATES)))
    warmups = [{"warmup_ratio": 0.0, "loss": 2.0}, {"warmup_ratio": 0.1, "loss": 2.0}]
    assert band_advice(band("warmup_ratio", *warmups)) == ""


def test_a_side_that_was_not_tried_is_not_bracketed() -> None:
    found = band("learning_rate", *rates(*RATES[3:5]))
    assert (found.beyond_low, found.beyond_high) == (None, None)
    assert band_text(found) == "2e-4 to 4e-4 (not bracketed)"
    assert band_advice(found) == ""


def test_trials_that_differ_elsewhere_bound_no_band() -> None:
    """A cosine trial at 6.87e-4 is no end of a constant trial's band: 7e-4 with `constant` was better."""
    best = {"learning_rate": 4.79e-4, "lr_scheduler_type": "constant", "loss": 3.351}
    lower = {"learning_rate": 3.46e-4, "lr_scheduler_type": "constant", "loss": 3.40}
    cosine = {"learning_rate": 6.87e-4, "lr_scheduler_type": "cosine", "warmup_ratio": 0.1, "loss": 3.42}
    found = band("learning_rate", best, lower, cosine)
    assert (found.beyond_low, found.beyond_high) == (3.46e-4, None)
    assert band_text(found) == "4.79e-4 (outside: 3.46e-4; not bracketed above)"
    alike = {"learning_rate": 6.87e-4, "lr_scheduler_type": "constant", "loss": 3.42}
    assert band("learning_rate", best, lower, alike).beyond_high == 6.87e-4


def test_warmups_of_the_same_steps_are_the_same_value() -> None:
    """0.0899 and 0.1 of 20 steps are both 2 steps: neither is outside of the other."""
    best = {"warmup_ratio": 0.0899, "warmup_steps": 2, "loss": 2.0}
    same = {"warmup_ratio": 0.1, "warmup_steps": 2, "loss": 2.02}
    other = {"warmup_ratio": 0.2, "warmup_steps": 4, "loss": 2.1}
    found = band("warmup_ratio", best, same, other)
    assert (found.low, found.high, found.beyond_high) == (0.0899, 0.0899, 0.2)


def test_close_values_elsewhere_match() -> None:
    trials = [*rates((2e-4, 2.0), warmup_ratio=0.1, warmup_steps=2), *rates((1e-3, 2.2), warmup_ratio=0.098)]
    assert band("learning_rate", *trials).beyond_high == 1e-3
    assert band("learning_rate", trials[0], trials[1] | {"warmup_ratio": 0.3}).beyond_high is None


def test_noise_moves_the_ends_outwards_only() -> None:
    """0.02 above the best is not clearly outside when the noise of a run is 0.01."""
    found = band("learning_rate", *rates(*RATES), noise=0.01)
    assert (found.low, found.beyond_low, found.beyond_high) == (1e-4, 1e-5, 1e-3)


def test_names_are_listed_best_first() -> None:
    names = [
        {"lr_scheduler_type": name, "loss": loss}
        for name, loss in (("linear", 2.005), ("cosine", 2.0), ("constant", 2.5))
    ]
    found = band("lr_scheduler_type", *names)
    assert found.names == ("cosine", "linear")
    assert band_text(found) == "cosine or linear"


def test_a_model_of_all_trials_bounds_what_matched_ones_leave_open() -> None:
    """Every trial has another warmup; the loss follows the rate alone."""
    losses = [(5e-5, 2.4), (1e-4, 2.2), (2e-4, 2.1), (4e-4, 2.03), (8e-4, 2.0), (1.6e-3, 2.02), (3e-3, 2.6)]
    trials = [
        {"learning_rate": rate, "loss": loss, "warmup_ratio": 0.05 * (3 * index % 7)}
        for index, (rate, loss) in enumerate(losses)
    ]
    found = band("learning_rate", *trials, has_model=True)
    assert (found.num_trials, found.num_in_model) == (1, 7)
    assert found.by_model == ("beyond_high",)
    assert found.beyond_high is not None
    assert 1.6e-3 <= found.beyond_high <= 3e-3
    assert "by a model of 7 trials" in band_text(found)


@pytest.mark.parametrize("trials", [[], [{"loss": None}]])
def test_without_a_loss_there_is_no_band(trials: list[dict[str, Any]]) -> None:
    assert band_of("learning_rate", ValueEffects(sweep(*trials))) is None
