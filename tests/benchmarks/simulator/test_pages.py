"""The reference pages of the simulations are those of the figures beside them."""

from __future__ import annotations

import json
from types import ModuleType

import pytest

from benchmarks import confirmations, search


@pytest.mark.parametrize("module", [confirmations, search], ids=["confirmations", "search"])
def test_a_saved_page_is_that_of_its_figures(module: ModuleType) -> None:
    kept = json.loads(module.FIGURES.read_text(encoding="utf-8"))
    assert module.PAGE.read_text(encoding="utf-8") == module.page(kept)


def test_a_missed_goal_is_bold() -> None:
    kept = json.loads(confirmations.FIGURES.read_text(encoding="utf-8"))
    figures = next(iter(next(iter(kept.values()))["cases"].values()))
    rate = {"value": 0.06, "error": 0.01}
    shown = confirmations.cells(
        "a case", figures | {"wrong": rate, "undecided": {"value": 0.3, "error": 0.0}}
    )
    assert shown[0] == "**0.060 ± 0.010**"
    assert "**" not in shown[4], "without a budget of few runs it is no goal"
    few = confirmations.cells("a case, 42 runs", figures | {"undecided": {"value": 0.3, "error": 0.0}})
    assert few[4] == "**0.300 ± 0.000**"
