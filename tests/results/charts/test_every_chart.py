"""What holds for all charts of any sweep: where things lie, what they are written as, and their size."""

from __future__ import annotations

import math
import random
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from typing import Any

import optuna
import pytest
from optuna.trial import FrozenTrial, TrialState, create_trial

from results.charts.catalog import BUILDERS
from results.charts.chart import Chart
from results.charts.figures import plot
from results.charts.layout.place import Layout, place
from results.charts.layout.sizes import NARROW, WIDE, Size
from results.charts.page_parts import chart_css
from results.charts.plotly_figure import figure
from results.charts.styles import STYLES
from results.charts.svg import svg
from results.errors import NothingToSay
from results.hyperparameter_importance import Importance, read_importance
from search_spaces import DEFAULT_LABEL, Dimension, SearchSpace
from tests.results.charts.conftest import overlapping, read, text_boxes
from tests.results.conftest import SPACE, study, trial
from tests.results.report.conftest import XSS, curve, many_trials, seated

Charts = dict[str, Chart]
SIZES = [pytest.param(WIDE, id="wide"), pytest.param(NARROW, id="narrow")]
STATES = ("few", "many", "six", "hostile")


def charts_of(of: optuna.Study) -> Charts:
    built = {name: build(*read(of), read_importance(of)) for name, build in BUILDERS.items()}
    return {name: chart for name, chart in built.items() if chart is not None}


def default() -> FrozenTrial:
    made = trial(2.31, label=DEFAULT_LABEL, rows=("scenario.general", "size.7-8b"), reports=curve(2.31))
    return seated(made, seat=0, begin=-40, seconds=30)


SIX = SearchSpace(
    dimensions=(
        *SPACE.dimensions[:3],
        Dimension(name="lora_r", kind="categorical", choices=(8, 16, 32, 64, 128, 256), default=16),
        Dimension(name="lora_dropout", kind="float", low=0.0, high=0.2, default=0.0),
        Dimension(name="weight_decay", kind="float", low=0.0, high=0.1, default=0.0),
    )
)


def six_dimensions(count: int) -> list[FrozenTrial]:
    """Trials of `many_trials` with three more hyperparameters."""
    random_ = random.Random(5)
    made = []
    for old in many_trials(count):
        params = {name: value for name, value in old.params.items() if name != "warmup_ratio"}
        params |= {
            "lora_r": random_.choice((8, 16, 32, 64, 128, 256)),
            "lora_dropout": random_.uniform(0, 0.2),
        }
        params["weight_decay"] = random_.uniform(0, 0.1)
        by_name = {dimension.name: dimension for dimension in SIX.dimensions}
        made.append(
            create_trial(
                state=old.state,
                params=params,
                distributions={name: distribution(by_name[name]) for name in params},
                value=old.value if old.state == TrialState.COMPLETE else None,
                intermediate_values=old.intermediate_values,
                user_attrs=old.user_attrs,
            )
        )
        made[-1].datetime_start, made[-1].datetime_complete = old.datetime_start, old.datetime_complete
    return made


def distribution(dimension: Dimension) -> Any:
    if dimension.choices is not None:
        return optuna.distributions.CategoricalDistribution(dimension.choices)
    low, high = dimension.bounds()
    return optuna.distributions.FloatDistribution(low, high, log=dimension.log)


@pytest.fixture(scope="module")
def drawn() -> dict[str, Charts]:
    """The charts of sweeps in each of STATES."""
    hostile = many_trials(60)
    for number, made in enumerate(hostile):
        made.user_attrs |= {"stop_reason": XSS, "worker": number % 2}
    return {
        "few": charts_of(study(default(), *many_trials(5))),
        "many": charts_of(study(default(), *many_trials(256))),
        "six": charts_of(study(default(), *six_dimensions(150), space=SIX)),
        "hostile": charts_of(study(default(), *hostile, name=f"hostile {XSS}")),
    }


def layouts(drawn: dict[str, Charts], size: Size) -> list[tuple[str, Layout]]:
    return [
        (f"{state} {name}", place(chart, size))
        for state, charts in drawn.items()
        for name, chart in charts.items()
    ]


def test_each_state_has_its_charts(drawn: dict[str, Charts]) -> None:
    assert list(drawn["few"]) == ["learning_rate", "curves", "embedding_ratio", "parallel", "timeline"]
    assert [list(drawn[state]) for state in STATES[1:3]] == [list(BUILDERS)] * 2


@pytest.mark.parametrize("size", SIZES)
def test_nothing_leaves_the_picture_and_no_text_lies_on_another(drawn: dict[str, Charts], size: Size) -> None:
    wrong = []
    for name, layout in layouts(drawn, size):
        boxes = text_boxes(layout)
        wrong += [(name, pair) for pair in overlapping(boxes)]
        wrong += [
            (name, text)
            for text, box in boxes
            if box.left < 0 or box.right > size.width or box.top < 0 or box.bottom > layout.height
        ]
        frame, marks = layout.frame, [placed.point for placed in layout.marks]
        wrong += [
            (name, point)
            for point in marks
            if not (frame.left <= point.x <= frame.right and frame.top <= point.y <= frame.bottom)
        ]
        wrong += [(name, bar.box) for bar in layout.bars if not bar.box.is_inside(frame)]
    assert wrong == []


def test_bars_of_a_lane_do_not_overlap(drawn: dict[str, Charts]) -> None:
    for size in (WIDE, NARROW):
        boxes = [bar.box for bar in place(drawn["many"]["timeline"], size).bars]
        assert len(boxes) == 257
        overlaps = [
            (one, other)
            for index, one in enumerate(boxes)
            for other in boxes[index + 1 :]
            if min(one.right, other.right) - max(one.left, other.left) > 0.6 and one.top == other.top
        ]
        assert overlaps == []


@pytest.mark.parametrize("state", STATES)
def test_it_is_xml_without_elements_or_numbers_of_others(drawn: dict[str, Charts], state: str) -> None:
    for chart in drawn[state].values():
        text = str(svg(chart))
        root = ElementTree.fromstring(text)
        assert {element.tag for element in root.iter()} <= {"div", "svg", "rect", "path", "text", "title"}
        assert not re.search(
            r"nan|inf\b|None|e-\d", "".join(re.findall(r' (?:d|x|y|width|height)="[^"]*"', text))
        )
        wide, narrow = root
        titles = [element for element in wide.iter() if element.find("title") is not None]
        marked = [element for element in narrow.iter() if element.get("data-t") is not None]
        assert [element.tag for element in titles] == [
            element.tag for element in marked
        ]  # hover.js counts on it


def test_text_of_a_study_is_shown_as_it_is(drawn: dict[str, Charts]) -> None:
    shown = "".join(ElementTree.fromstring(str(svg(drawn["hostile"]["curves"]))).itertext())
    assert XSS[:60] in shown
    for chart in drawn["hostile"].values():
        assert "<img" not in repr(figure(chart).to_plotly_json())  # plotly has an HTML of its own


def test_the_same_study_gives_the_same_bytes_and_all_charts_fit_a_report(drawn: dict[str, Charts]) -> None:
    again = charts_of(study(default(), *many_trials(256)))
    pages = ["".join(str(svg(chart)) for chart in charts.values()) for charts in (drawn["many"], again)]
    assert pages[0] == pages[1]
    assert len(pages[0]) < 600_000
    assert len(chart_css()) < 8_000


def test_every_style_has_its_color_in_both_looks() -> None:
    css = chart_css()
    light, dark = css.split("prefers-color-scheme:dark){.chart{--c-")
    for name in STYLES:
        assert f".k-{name}{{" in css
        assert f"--c-{name}:" in light
        assert f"--c-{name}:" in f"--c-{dark}"


@pytest.mark.parametrize("name", list(BUILDERS))
def test_each_name_gives_a_plotly_figure_of_the_same_marks(name: str) -> None:
    of = study(default(), *many_trials(90))
    made = plot(name, *read(of), read_importance(of))
    chart = charts_of(of)[name]
    points = sum(len(series.marks) for series in (*chart.series, *chart.edge))
    assert made.layout.title.text == chart.title
    assert (
        sum(
            len(t.x)
            for t in made.data
            if t.type == "scatter" and t.mode == "markers+text" and t.yaxis != "y2"
        )
        == points
    )
    assert sum(len(t.x) for t in made.data if t.type == "bar") == sum(len(s.bars) for s in chart.series)
    assert made.to_plotly_json()


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("learning_rate", "at least two learning rates"),
        ("curves", "a trial that was evaluated"),
        ("importance", "No hyperparameter was searched"),
        ("timeline", "a trial that had a seat"),
    ],
)
def test_a_plot_of_nothing_says_what_it_needs(name: str, why: str) -> None:
    of = study()
    with pytest.raises(NothingToSay, match=why):
        plot(name, *read(of), read_importance(of))


def test_shares_are_bars_with_their_titles(answered: Callable[..., Any]) -> None:
    chart = BUILDERS["importance"](
        *answered(), Importance(shares={"lora_r": 0.75, "odd": 0.25}, num_trials=40)
    )
    assert chart is not None
    assert [tick.text for tick in chart.y.ticks or ()] == ["Rank", "Odd"]
    assert [(bar.high, bar.label) for bar in chart.series[0].bars] == [(75, "75%"), (25, "25%")]


def test_a_line_of_a_trial_ends_where_it_was_pruned(answered: Callable[..., Any]) -> None:
    pruned = trial(outcome="pruned", lr=1e-4, reports={20: 2.9, 40: 2.8})
    chart = BUILDERS["curves"](
        *answered(default(), trial(2.0, lr=1e-3, reports=curve(2.0)), pruned), Importance()
    )
    assert chart is not None
    lines = {series.style: series.lines for series in chart.series}
    assert lines["pruned"][0].points == ((0, 3), (20, 2.9), (40, 2.8))
    assert [(guide.at, guide.label) for guide in chart.guides] == [(40, "1 pruned")]
    assert [lines[style][0].label for style in ("default", "best")] == ["default 2.310", "best 2.000"]


def test_a_trial_without_a_hyperparameter_goes_through_none(answered: Callable[..., Any]) -> None:
    trials = [default(), trial(2.0, lr=1e-3, scheduler="constant"), trial(2.1, lr=5e-4)]
    chart = BUILDERS["parallel"](*answered(*trials), Importance())
    assert chart is not None
    (best,) = [series.lines[0] for series in chart.series if series.style == "best"]
    lane = next(tick.at for tick in chart.y.ticks or () if tick.text.startswith("Warmup"))
    (note,) = [note for note in chart.notes if note.text == "none"]
    assert (note.x, note.y) == next(point for point in best.points if point[1] == lane)
    assert math.isclose(best.points[-1][0], 0.0)  # the lowest loss lies at the left
