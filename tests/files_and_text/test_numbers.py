"""Numbers as a person writes them."""

from __future__ import annotations

import pytest

from files_and_text.numbers import number


@pytest.mark.parametrize(
    ("value", "text"),
    [(2e-4, "2e-4"), (1.234e-5, "1.23e-5"), (0.25, "0.25"), (8.03e9, "8.03e9"), (0.0, "0"), (150.0, "150"),
     (100.0, "100"), (-3e-3, "-3e-3"), (None, "unknown"), (12345.0, "12345")],
)  # fmt: skip
def test_numbers_as_people_write_them(value, text):
    assert number(value) == text
