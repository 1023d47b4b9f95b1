"""What `benchmarks.decisions` times: sets of trials, and one fit for all decisions."""

from __future__ import annotations

import pytest

from benchmarks.decisions import costs, curves
from benchmarks.simulator.worlds import space
from sweeps.study.curve_gp import decisions
from sweeps.study.curve_gp.model import CurveModel


def test_trials_have_all_reports_or_broke_before_the_end() -> None:
    found = curves(space(5, 8.03e9), 64, seed=0)
    whole = {20, 40, 60, 80, 100}
    assert len(found) == 64
    assert {curve.state for curve in found} == {"ended", "broken"}
    assert all((set(curve.reports) == whole) == (curve.state == "ended") for curve in found)


def test_one_fit_serves_a_proposal_and_a_stop_decision(monkeypatch: pytest.MonkeyPatch) -> None:
    fits = []

    def count(*arguments: object) -> CurveModel:
        fits.append(arguments)
        return CurveModel(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(decisions, "CurveModel", count)
    monkeypatch.setattr(decisions, "_FITTED", {})
    assert all(seconds > 0 for seconds in costs(12))
    assert len(fits) == 1
