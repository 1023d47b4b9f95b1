"""The values within the margin of the best, and what lies beyond."""

from __future__ import annotations

import pytest

from results.text.comparisons import band_advice, band_text
from results.verdict.band import band_of

RATES = [(1e-5, 2.2), (5e-5, 2.02), (1e-4, 2.005), (2e-4, 2.0), (4e-4, 2.008), (1e-3, 2.5)]


def test_the_band_is_the_hull_of_the_values_within_the_margin():
    band = band_of("learning_rate", RATES)
    assert band is not None
    assert (band.low, band.high) == (1e-4, 4e-4)
    assert (band.beyond_low, band.beyond_high) == (5e-5, 1e-3)
    assert (band.best, band.num_within, band.num_trials) == (2e-4, 3, 6)
    assert band_text(band) == "1e-4 to 4e-4 (outside: 5e-5 and 1e-3)"


def test_of_a_rate_the_low_end_is_advised_and_of_warmup_neither():
    band = band_of("learning_rate", RATES)
    assert band is not None
    assert "take 1e-4 to 2e-4, not more" in band_advice(band)
    warmup = band_of("warmup_ratio", [(0.0, 2.0), (0.1, 2.0)])
    assert warmup is not None
    assert band_advice(warmup) == ""


def test_a_side_that_was_not_tried_is_open():
    band = band_of("learning_rate", RATES[3:5])
    assert band is not None
    assert (band.beyond_low, band.beyond_high) == (None, None)
    assert "open below and above" in band_text(band)


def test_noise_moves_the_ends_outwards_only():
    """0.02 above the best is not clearly outside when the noise of a run is 0.01."""
    band = band_of("learning_rate", RATES, noise=0.01)
    assert band is not None
    assert (band.low, band.beyond_low, band.beyond_high) == (1e-4, 1e-5, 1e-3)


def test_other_dimensions_do_not_narrow_it():
    """A value counts with its best other settings, as every trial differs in several dimensions."""
    band = band_of("learning_rate", [*RATES, (1e-4, 3.0), (4e-4, 9.0)])
    assert band is not None
    assert (band.low, band.high) == (1e-4, 4e-4)


def test_names_are_listed_best_first():
    band = band_of("lr_scheduler_type", [("linear", 2.005), ("cosine", 2.0), ("constant", 2.5)])
    assert band is not None
    assert band.names == ("cosine", "linear")
    assert band_text(band) == "cosine or linear"


@pytest.mark.parametrize("points", [[], [(1e-4, float("nan"))]])
def test_without_a_loss_there_is_no_band(points):
    assert band_of("learning_rate", points) is None
