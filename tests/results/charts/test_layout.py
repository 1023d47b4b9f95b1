"""The parts of a layout on their own: ticks, labels, lines that leave the frame, seats that overlap."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from results.charts.builders.ranges import log_ends, loss_ends
from results.charts.builders.timeline import seat_times
from results.charts.chart import Axis, Tick
from results.charts.layout.boxes import Box
from results.charts.layout.clip import clipped_parts
from results.charts.layout.labels import beside, best_place, moved_apart
from results.charts.layout.scales import Scale, ticks_of
from results.charts.layout.sizes import NARROW
from results.charts.layout.spread import Point, spread
from results.charts.layout.ticks import x_ticks
from results.sweep_result import Stay, TrialResult
from tests.results.report.conftest import START

FRAME = Box(left=0, top=0, right=300, bottom=200)


def axis(low: float, high: float, *, is_log: bool = False, ticks: tuple[Tick, ...] | None = None) -> Axis:
    return Axis(title="", low=low, high=high, is_log=is_log, ticks=ticks)


@pytest.mark.parametrize(
    ("shown", "most", "texts"),
    [
        (axis(0, 1), 5, ["0.0", "0.2", "0.4", "0.6", "0.8", "1.0"]),
        (axis(5.96, 7.05), 5, ["6.0", "6.2", "6.4", "6.6", "6.8", "7.0"]),
        (axis(0, 37), 5, ["0", "10", "20", "30"]),
        (
            axis(4e-5, 2e-2, is_log=True),
            18,
            ["5e-5", "1e-4", "2e-4", "5e-4", "1e-3", "2e-3", "5e-3", "0.01", "0.02"],
        ),
        (axis(4e-5, 2e-2, is_log=True), 6, ["1e-4", "3e-4", "1e-3", "3e-3", "0.01"]),
        (axis(1.8e-4, 4.5e-4, is_log=True), 6, ["2e-4", "3e-4", "4e-4"]),
    ],
)
def test_ticks_are_round_and_few(shown: Axis, most: int, texts: list[str]) -> None:
    assert [tick.text for tick in ticks_of(shown, most)] == texts


def test_tick_labels_without_room_are_left_out_and_the_round_ones_stay() -> None:
    shown = axis(0.9, 11, is_log=True, ticks=tuple(Tick(at=at, text=f"{at}.00000") for at in range(1, 11)))
    placed = x_ticks(shown, Scale(axis=shown, start=40, end=260), NARROW, 0)
    texts = [tick.label.text for tick in placed if tick.label is not None]
    assert len(placed) == 10
    assert {"1.00000", "10.00000"} <= set(texts)
    assert len(texts) < 6


def test_a_label_avoids_other_labels_and_then_marks() -> None:
    tried = list(beside("best 2.0", 150, 100, half=5, size=12, style="best"))
    free = best_place(tried, inside=FRAME, taken=[], marks=[])
    assert free == tried[0]
    other = best_place(tried, inside=FRAME, taken=[tried[0].box], marks=[])
    assert other is not None
    assert not other.box.overlaps(tried[0].box)
    crowd = [Box(left=160, top=80, right=300, bottom=120)]  # marks right of it
    beyond = best_place(tried, inside=FRAME, taken=[], marks=crowd)
    assert beyond is not None
    assert not beyond.box.overlaps(crowd[0])
    assert best_place(tried, inside=FRAME, taken=[FRAME], marks=[]) is None


def test_labels_at_ends_of_lines_are_moved_apart_inside_of_the_frame() -> None:
    assert moved_apart([50, 52, 55], step=10, low=0, high=200) == [50, 60, 70]
    assert moved_apart([195, 199], step=10, low=0, high=200) == [190, 200]
    assert moved_apart([-20, 5], step=10, low=6, high=200) == [6, 16]


def test_a_line_is_cut_at_the_frame_and_comes_back() -> None:
    points = ((0.0, 3.0), (20.0, 1.0), (40.0, 5.0), (60.0, 1.0))
    assert clipped_parts(points, 0.0, 2.0) == [
        [(10.0, 2.0), (20.0, 1.0), (25.0, 2.0)],
        [(55.0, 2.0), (60.0, 1.0)],
    ]
    assert clipped_parts([(0, 9), (1, 8)], 0, 2) == []


def test_spread_moves_little_keeps_order_and_stays_inside() -> None:
    points = [Point(x=2, y=0, half=5), *(Point(x=100, y=0, half=5) for _ in range(3))]
    placed = spread(points, left=0, right=300)
    assert [point.x for point in placed[:2]] == [6.04, 100]  # the first would reach out of the frame at 2
    assert sorted(abs(point.x - 100) for point in placed[1:]) == pytest.approx([0, 8.08, 8.08], abs=0.05)


def test_the_range_of_losses_shows_what_differs() -> None:
    low, high = loss_ends([2.0, 2.1, 2.2, 9.0])
    assert low < 2.0
    assert high > 9.0  # of four losses none is an outlier
    assert loss_ends([2.0, 2.05, 2.1, 2.15, 2.2, 9.0])[1] < 2.5
    assert loss_ends([2.0, 2.05, 2.1, 2.15, 2.2, 9.0], named=[2.6])[1] > 2.6  # the default, say
    assert loss_ends([2.0], base=3.0)[1] > 3.0


def test_the_range_of_rates_reaches_to_values_of_tables_nearby() -> None:
    low, high = log_ends([1e-4, 1e-3], reach=[5e-5, 1e-8])
    assert 2e-5 < low < 5e-5
    assert 1e-3 < high < 2e-3
    assert log_ends([2e-4]) == (1e-4, 4e-4)


def seated(number: int, begin: float, end: float | None, *, seat: int = 0) -> TrialResult:
    return TrialResult(
        number=number,
        values={},
        eval_loss=None,
        outcome="running" if end is None else "complete",
        worker=0,
        seat=seat,
        started=START + timedelta(seconds=begin),
        ended=None if end is None else START + timedelta(seconds=end),
    )


def placed(*trials: TrialResult) -> dict[int, tuple[float, float]]:
    return {time.trial.number: (time.begin, time.end) for time in seat_times(trials)[0]}


def test_a_trial_drawn_while_its_seat_was_taken_begins_when_the_seat_is_free() -> None:
    assert placed(seated(0, 0, 10), seated(1, 4, 25)) == {0: (0, 10), 1: (10, 25)}


def test_a_trial_that_was_frozen_has_a_bar_for_each_stay_on_a_seat() -> None:
    """One was frozen at 10 s and taken up at 20 s elsewhere; the other frozen at 20 s and pruned at 60 s."""

    def stay(seat: int, began: float | None, left: float | None) -> Stay:
        times = [None if time is None else START + timedelta(seconds=time) for time in (began, left)]
        return Stay(worker=0, seat=seat, began=times[0], left=times[1])

    thawed = replace(seated(0, 0, 40, seat=1), stays=(stay(0, None, 10), stay(1, 20, None)))
    pruned = replace(seated(1, 10, 60, seat=0), stays=(stay(0, None, 20),))
    bars = [(t.trial.number, t.lane[1], t.begin, t.end) for t in seat_times([thawed, pruned])[0]]
    assert sorted(bars) == [(0, 0, 0, 10), (0, 1, 20, 40), (1, 0, 10, 20)]


def test_a_running_trial_reaches_to_the_last_known_time() -> None:
    assert placed(seated(0, 0, 30), seated(1, 5, None, seat=1)) == {0: (0, 30), 1: (5, 30)}


def test_a_long_pause_is_cut_out_and_a_short_gap_is_none() -> None:
    times, pauses = seat_times([seated(0, 0, 100), seated(1, 100_000, 100_050)])
    assert [(time.begin, time.end) for time in times] == [(0, 100), (100, 150)]
    assert [(pause.at, pause.seconds) for pause in pauses] == [(100, 99_900)]
    assert seat_times([seated(0, 0, 100), seated(1, 101, 200)])[1] == []
