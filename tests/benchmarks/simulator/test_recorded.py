"""Recorded curves of real trials as sweeps: read, interpolated, and replayed with their own scatter."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from benchmarks import record_curves
from benchmarks.search import differences, halving, simulate, summary
from benchmarks.simulator.recorded import CURVES, RecordedTrials, point_of, read_curves, recorded_space
from sweeps.study.curve_gp.features import params_of, quasi_random

RATES = np.geomspace(3e-4, 3e-2, 40)


def written(path: Path, rows: list[tuple[dict[str, Any], list[float | None]]]) -> Path:
    """A table as `record_curves` writes it, of trials with these values and losses."""
    trials = [
        SimpleNamespace(
            params=params,
            intermediate_values={
                p: v for p, v in zip(record_curves.REPORT_AT, losses, strict=True) if v is not None
            },
            state=SimpleNamespace(is_finished=lambda: True),
        )
        for params, losses in rows
    ]
    path.write_text(record_curves.as_csv(trials), encoding="utf-8")  # type: ignore[arg-type]
    return path


def params(rate: float, **more: Any) -> dict[str, Any]:
    return {
        "learning_rate": rate,
        "lr_scheduler_type": "constant",
        "embedding_lr_ratio": 0.25,
        "lora_r": 16,
    } | more


def falling(end: float) -> list[float | None]:
    return [end + 0.1 * (100 / percent - 1) for percent in record_curves.REPORT_AT]


def test_a_curve_between_recorded_ones_is_interpolated_at_every_report(tmp_path: Path) -> None:
    def end(rate: float) -> float:
        return 2 + (np.log10(rate) + 2.7) ** 2

    curves = read_curves(written(tmp_path / "curves.csv", [(params(r), falling(end(r))) for r in RATES]))
    between = 10**-2.9
    assert curves.mean(params(between)) == pytest.approx(falling(end(between)), abs=2e-3)
    assert curves.left_out_error(10) < 0.1
    trials = RecordedTrials(curves=curves, generator=np.random.default_rng(0))
    curve = trials.curve(params(between))
    assert trials.report_at == record_curves.REPORT_AT
    assert curve.last == pytest.approx(end(between), abs=0.02)


def test_a_replayed_trial_scatters_as_the_recorded_ones_near_it_do(tmp_path: Path) -> None:
    """The runs at high rates were noisy, those at low rates were not."""
    noise = np.random.default_rng(1).normal(size=len(RATES)) * np.where(RATES > 3e-3, 0.2, 0.0)
    rows = [(params(rate), falling(2 + away)) for rate, away in zip(RATES, noise, strict=True)]
    curves = read_curves(written(tmp_path / "curves.csv", rows))
    trials = RecordedTrials(curves=curves, generator=np.random.default_rng(2))
    low, high = ([trials.curve(params(rate)).last for _ in range(40)] for rate in (5e-4, 1.5e-2))
    assert np.std(np.array(low, float)) < 0.02
    assert np.std(np.array(high, float)) > 0.1


def test_a_trial_that_broke_is_kept_in_the_table_and_not_interpolated(tmp_path: Path) -> None:
    rows = [(params(rate), falling(2.0)) for rate in RATES]
    broken: list[float | None] = [2.5, None, None, None, None, None]
    path = written(tmp_path / "curves.csv", [*rows, (params(0.03), broken)])
    assert path.read_text(encoding="utf-8").splitlines()[-1].endswith(",2.50000,,,,,")
    assert len(read_curves(path).points) == len(RATES)


def test_a_constant_schedule_has_no_warmup() -> None:
    space = recorded_space(5)
    points = [params_of(space, row.tolist()) for row in quasi_random(64, 5, start=0, shift=np.zeros(5))]
    for values in points:
        assert ("warmup_ratio" in values) == (values["lr_scheduler_type"] != "constant")
        assert ((point_of(values) >= 0) & (point_of(values) <= 1)).all()


def test_the_committed_curves_are_close_enough_to_tell_methods_apart() -> None:
    """The page quotes this error."""
    curves = read_curves(CURVES)
    assert len(curves.points) >= 150
    assert curves.left_out_error(5) < 0.5
    assert curves.lowest(5) <= curves.lowest(3)
    default = params(3e-4, lr_scheduler_type="linear", warmup_ratio=0.1)
    assert curves.mean(default)[-1] > 1.05 * curves.lowest(3), "the search has something to find"


@pytest.mark.parametrize("num_dimensions", [3, 5])
def test_a_search_on_recorded_curves_repeats(num_dimensions: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.search.COMPUTE", (8, 16))
    first, again = (
        simulate(halving("tpe", 40), num_dimensions, 8, 1, 0, source="recorded") for _ in range(2)
    )
    assert first == again
    assert first["regret"][0] >= first["regret"][1] >= 0


def test_methods_are_compared_on_the_sweeps_that_both_searched() -> None:
    def line(*regrets: float | None) -> dict[str, Any]:
        return summary([{"regret": [None, 1.0, 1.0, r], "trials": 1, "killed": False} for r in regrets])

    count, found = differences(line(1.0, 2.0, 3.0), line(0.5, 1.5))
    assert count == 2
    assert found[0] is None
    assert found[3] == pytest.approx([0.5, 0.0])
    assert differences({}, line(1.0))[0] == 0
