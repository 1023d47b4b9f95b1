"""Numbers as a person writes them."""

from __future__ import annotations

import pytest

from files_and_text.numbers import duration, number, number_range, parameters, plural, value_text


@pytest.mark.parametrize(
    ("value", "text"),
    [(2e-4, "2e-4"), (1.234e-5, "1.23e-5"), (0.25, "0.25"), (8.03e9, "8.03e9"), (0.0, "0"), (150.0, "150"),
     (100.0, "100"), (-3e-3, "-3e-3"), (None, "unknown"), (12345.0, "12345")],
)  # fmt: skip
def test_numbers_as_people_write_them(value, text):
    assert number(value) == text


def test_what_is_no_finite_number_is_unknown():
    assert [number(value) for value in (float("nan"), float("inf"))] == ["unknown", "unknown"]


def test_ranges_and_values_of_hyperparameters():
    assert (number_range(2e-4, 2e-4), number_range(1e-4, 0.25)) == ("2e-4", "1e-4 to 0.25")
    assert [value_text(value) for value in (2e-4, 16, "linear")] == ["2e-4", "16", "linear"]


def test_counts_and_durations():
    assert (plural(1, "trial"), plural(0, "trial")) == ("1 trial", "0 trials")
    assert [parameters(count) for count in (8.03e9, 5.05e6, 12)] == ["8.03B", "5.05M", "12"]
    assert [duration(seconds) for seconds in (3, 95, 7300)] == ["3 s", "1 min 35 s", "2 h 1 min"]
    assert [duration(seconds, decimals=1) for seconds in (3, 95)] == ["3.0 s", "1 min 35 s"]
