"""ValueChecker: right values are returned, wrong ones become problems with key and line."""

from __future__ import annotations

import pytest

from files_and_text.problems import InputError
from files_and_text.value_checker import Limits, ValueChecker


@pytest.mark.parametrize(
    ("limits", "value", "rule"),
    [
        (Limits(whole=True), 1.5, "must be a whole number"),
        (Limits(above=0), 0, "must be above 0"),
        (Limits(at_least=1), 0.5, "must be at least 1"),
        (Limits(at_most=1), 1.5, "must be at most 1"),
        (Limits(below=1), 1, "must be below 1"),
        (Limits(whole=True, at_least=1, at_most=3), 3, None),
    ],
)
def test_limits(limits: Limits, value: float, rule: str | None) -> None:
    assert limits.broken_by(value) == rule


def test_every_problem_names_its_key_and_line() -> None:
    check = ValueChecker("f.yaml", {(): 1, ("a",): 2, ("a", "b"): 3})
    assert check.number("1e-4", ("a", "b"), Limits(above=0)) == 1e-4
    assert check.number(0, ("a", "b"), Limits(above=0)) is None
    assert check.items("x", ("a",)) == []
    assert check.one_of("linaer", ("linear",), ("a", "c", 0)) is None
    with pytest.raises(InputError) as caught:
        check.raise_if_any()
    assert str(caught.value).splitlines() == [
        "f.yaml:3: a.b must be above 0; got 0.",
        "f.yaml:2: a must be a list; got 'x'.",
        "f.yaml:2: a.c[0]: 'linaer' is not known. Did you mean 'linear'? Known: linear.",
    ]
