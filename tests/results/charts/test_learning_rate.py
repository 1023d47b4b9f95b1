"""The chart of loss against learning rate: what it shows, and where it lies in the picture."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from results.answer.answer import Answer
from results.answer.read_answer import read_answer
from results.charts.builders.learning_rate import learning_rate_chart
from results.charts.chart import Chart
from results.charts.layout.place import place
from results.charts.layout.sizes import NARROW, WIDE, Size
from results.charts.plotly_figure import figure
from results.charts.svg import svg
from results.sweep_result import SweepResult, read_study
from results.verdict.verdict import verdict
from search_spaces import DEFAULT_LABEL
from tests.results.charts.conftest import overlapping, text_boxes
from tests.results.confirm_studies import ARMS, arm, confirm
from tests.results.report.conftest import XSS, many_trials

Answered = Callable[..., tuple[SweepResult, Answer]]
SIZES = [pytest.param(WIDE, id="wide"), pytest.param(NARROW, id="narrow")]


def chart_of(found: tuple[SweepResult, Answer]) -> Chart:
    chart = learning_rate_chart(*found)
    assert chart is not None
    return chart


def marks_of(chart: Chart, style: str) -> list[tuple[float, float]]:
    return [(mark.x, mark.y) for series in chart.series if series.style == style for mark in series.marks]


@pytest.fixture(scope="module")
def busy() -> list[Any]:
    return many_trials(256)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("count", [3, 24, 256])
def test_marks_stay_in_the_frame_and_texts_apart(
    answered: Answered, busy: list[Any], size: Size, count: int
) -> None:
    layout = place(chart_of(answered(*busy[:count])), size)
    assert [p.mark.text for p in layout.marks if not p.box.is_inside(grown(layout.frame, p.point.half))] == []
    assert layout.edge is None or all(p.box.is_inside(grown(layout.edge, 1)) for p in layout.edge_marks)
    assert len(layout.marks) + len(layout.edge_marks) == count
    boxes = text_boxes(layout)
    assert overlapping(boxes) == []
    assert [
        text for text, box in boxes if box.left < 0 or box.right > size.width or box.bottom > layout.height
    ] == []


def grown(box: Any, by: float) -> Any:
    return type(box)(left=box.left - by, top=box.top - by, right=box.right + by, bottom=box.bottom + by)


@pytest.mark.parametrize("size", SIZES)
def test_trials_with_the_same_values_are_all_seen(answered: Answered, make_trial: Any, size: Size) -> None:
    same = [make_trial(2.5, lr=2e-4, scheduler="linear") for _ in range(4)]
    pruned = [make_trial(outcome="pruned", lr=2e-4, reports={20: 2.9}) for _ in range(6)]
    chart = chart_of(answered(*same, *pruned, make_trial(2.0, lr=1e-3)))
    said = "Marks that would hide each other, as at one rate, stand a little to the side."
    assert said in chart.caption
    assert said not in chart_of(answered(same[0], make_trial(2.0, lr=1e-3))).caption
    layout = place(chart, size)
    for marks in (layout.marks, layout.edge_marks):
        places = [(placed.point.x, placed.point.y) for placed in marks]
        assert all(
            max(abs(x - other_x), abs(y - other_y)) >= 3
            for index, (x, y) in enumerate(places)
            for other_x, other_y in places[index + 1 :]
        )


def test_best_default_tables_and_schedulers_have_marks_of_their_own(
    answered: Answered, make_trial: Any
) -> None:
    trials = [
        make_trial(2.5, lr=2e-4, label="guideline default", rows=("scenario.general",)),
        make_trial(2.4, lr=5e-4, scheduler="linear"),
        make_trial(2.2, lr=1e-3, scheduler="constant"),
        make_trial(2.3, lr=7e-4, scheduler="cosine"),
        make_trial(outcome="diverged", lr=2e-3, reports={20: 9.0}, reason="loss 9.0"),
    ]
    sweep, answer = answered(*trials)
    chart = chart_of((sweep, answer))
    assert marks_of(chart, "best") == [(1e-3, 2.2)]
    assert marks_of(chart, "default") == [(2e-4, 2.5)]
    assert marks_of(chart, "scheduler-linear") == [(5e-4, 2.4)]
    assert marks_of(chart, "scheduler-cosine") == [(7e-4, 2.3)]
    assert [(series.name, len(series.marks)) for series in chart.edge] == [("diverged", 1)]
    assert chart.strip[0].label == f"2e-4 (default), {len(answer.parameters[0].tables[0].rows)} rows"
    assert chart.guides[0].at == 2e-4
    assert "scenario.general" in chart.strip[0].text


def test_an_outlier_does_not_squeeze_the_others(answered: Answered, make_trial: Any) -> None:
    trials = [make_trial(2.0 + n / 20, lr=1e-4 * (n + 1)) for n in range(8)] + [make_trial(9.0, lr=1.9e-3)]
    chart = chart_of(answered(*trials, base=12.0))
    assert chart.y.high < 3
    assert [(series.name, series.marks[0].x) for series in chart.edge] == [("loss above", 1.9e-3)]
    assert "The untouched base has 12.000, above what is shown." in chart.caption
    assert not [guide for guide in chart.guides if guide.side == "y"]


def test_a_base_nearby_is_a_line(answered: Answered, make_trial: Any) -> None:
    chart = chart_of(answered(make_trial(2.5, lr=2e-4), make_trial(2.0, lr=1e-3), base=2.9))
    (base,) = [guide for guide in chart.guides if guide.side == "y"]
    assert (base.at, base.label) == (2.9, "untouched base 2.900")


def test_nothing_finished_or_one_rate_is_no_chart(answered: Answered, make_trial: Any) -> None:
    diverged = [make_trial(outcome="diverged", lr=1e-3 * n, reports={20: 9.0}) for n in (1, 2)]
    for trials in ([], diverged, [make_trial(2.0), make_trial(2.1)]):
        assert learning_rate_chart(*answered(*trials)) is None


def test_text_of_the_study_is_never_markup(answered: Answered, make_trial: Any) -> None:
    trials = [
        make_trial(2.5, lr=2e-4, scheduler="linear"),
        make_trial(2.2, lr=1e-3, scheduler="linear"),
        make_trial(outcome="failed", lr=5e-4, reason=XSS),
    ]
    sweep, answer = answered(*trials)
    hostile = [replace(trial, values={**trial.values, "lr_scheduler_type": XSS}) for trial in sweep.trials]
    chart = chart_of((replace(sweep, trials=hostile), answer))
    drawn = str(svg(chart))
    names = {element.tag for element in ElementTree.fromstring(drawn).iter()}
    assert names == {"div", "svg", "rect", "path", "text", "title"}
    assert XSS in "".join(ElementTree.fromstring(drawn).itertext())
    shown = repr(figure(chart).to_plotly_json())
    assert "<img" not in shown
    assert "<script" not in shown


def test_the_same_sweep_gives_the_same_bytes_and_few_of_them(answered: Answered, busy: list[Any]) -> None:
    one, other = (str(svg(chart_of(answered(*busy, name="one")))) for _ in range(2))
    assert one == other
    assert len(one) < 256 * 800


def test_after_a_confirmation_the_marks_are_means_of_the_seeds(make_trial: Any, make_study: Any) -> None:
    of = make_study(
        make_trial(2.2, lr=2e-4, ratio=0.25, label=DEFAULT_LABEL, rows=("scenario.general", "size.7-8b")),
        make_trial(2.0, lr=4e-4, ratio=0.125, scheduler="cosine", warmup=0.05),
        make_trial(2.3, lr=1e-3),
    )
    sweep = read_study(of)
    answer = read_answer(sweep, verdict(sweep, confirm(*ARMS)), run_folder="runs/mine")
    assert answer.best is not None
    chart = chart_of((sweep, answer))
    marks = {series.style: series.marks for series in chart.series}
    (best,), (default,), (again,) = marks["best"], marks["default"], marks["table"]
    assert (best.y, best.low, best.high) == (
        answer.best.loss.value,
        answer.best.loss.low,
        answer.best.loss.high,
    )
    assert best.label == "best 2.100, cosine, 5 seeds"
    assert "Marks with a bar are means over new seeds with an interval." in chart.caption
    before = chart_of((sweep, read_answer(sweep, verdict(sweep), run_folder="runs/mine")))
    assert "Marks with a bar" not in before.caption
    assert default.y == pytest.approx(2.2, abs=0.001)
    assert (again.x, again.y) == (2e-4, pytest.approx(2.15, abs=0.001))
    assert again.low is not None
    assert again.low < again.y < (again.high or 0)
    assert (4e-4, 2.0) in marks_of(chart, "scheduler-cosine")  # the single run stays a trial among others


def test_the_cost_of_all_tables_values_is_no_mark_of_one_rate(make_trial: Any, make_study: Any) -> None:
    of = make_study(
        make_trial(2.2, lr=2e-4, ratio=0.25, label=DEFAULT_LABEL, rows=("scenario.general", "size.7-8b")),
        make_trial(2.0, lr=4e-4, ratio=0.125, scheduler="cosine", warmup=0.05),
        make_trial(2.3, lr=1e-3),
    )
    others = {"learning_rate": 2e-4, "embedding_lr_ratio": 0.25, "lr_scheduler_type": "linear"}
    default = arm("default", "guideline_default", **others)
    sweep = read_study(of)
    answer = read_answer(sweep, verdict(sweep, confirm(ARMS[0], (default, 2.2))), run_folder="runs/mine")
    assert any(value.cost and value.cost.differs_in for p in answer.parameters for value in p.tables)
    assert "table" not in {series.style for series in chart_of((sweep, answer)).series}


def test_a_default_that_is_best_is_one_mark_that_says_so(answered: Answered, make_trial: Any) -> None:
    trials = [make_trial(2.0, lr=2e-4, label=DEFAULT_LABEL), make_trial(2.4, lr=5e-4)]
    chart = chart_of(answered(*trials))
    assert marks_of(chart, "default") == []
    (best,) = [series.marks[0] for series in chart.series if series.style == "best"]
    assert best.label == "best, the guideline default 2.000, linear"
