"""What the live screen draws, in terminals of several sizes."""

from __future__ import annotations

from typing import Any

import pytest

from results.text.answer import settings_text
from sweeps.study.status import Leader, Stage, Status
from sweeps.view.phrases import short_settings, shorten
from sweeps.view.screen import Screen
from sweeps.view.trial_lines import ASCII_BARS
from tests.sweeps.view.statuses import running_status, running_trial

SIZES = [(80, 24), (120, 40)]


def drawn(
    status: Status, width: int = 80, height: int = 24, screen: Screen | None = None, **also: Any
) -> str:
    lines = (screen or Screen()).lines(status, width=width, height=height, **also)
    assert len(lines) <= height
    for line in lines:
        assert line.cell_len <= width, line.plain
        assert "\n" not in line.plain
    return "\n".join(line.plain for line in lines)


@pytest.mark.parametrize(("width", "height"), SIZES)
def test_it_shows_the_sweep_its_trials_and_the_best_so_far(width: int, height: int) -> None:
    text = drawn(running_status(), width, height)
    lines = text.splitlines()
    assert lines[0].startswith("docstrings-5M  ━")
    assert lines[0].endswith("─  6 of 16 trials (4 complete, 2 pruned)")
    assert lines[1] == "started 1 min 35 s ago   about 2 min left   1,240 tokens/s   2 CPU cores"
    (heading,) = (line.split() for line in lines if line.startswith("trial"))
    assert heading == ["trial", "lr", "sched", "warmup", "step", "done", "train", "eval"]
    (tenth,) = (line.split() for line in lines if line.startswith("  10 "))
    assert tenth == ["10", "5.44e-4", "cosine", "3%", "12/40", "━━──────", "5.900", "5.710"]
    assert "Best  5.432 (trial 5)   guideline default 6.828 (+25.7%)   untouched base 6.934" in lines
    assert "      lr 5.98e-3, sched constant" in lines


def test_a_trial_without_warmup_or_without_a_step_leaves_no_hole() -> None:
    constant = running_trial(12, step=None, eval_loss=None)
    status = running_status(running=[running_trial(10), constant])
    (line,) = (line.split() for line in drawn(status).splitlines() if line.startswith("  12 "))
    assert line == ["12", "4.6e-4", "constant", "-", "30%", "━━──────", "5.900"]


def test_a_trial_belongs_to_the_line_of_its_seat_and_the_leader_is_marked() -> None:
    trials = [running_trial(10, seat=1), running_trial(11, seat=0), running_trial(30, seat=2)]
    leader = Leader(number=30, eval_loss=5.0, percent=40)
    lines = drawn(running_status(running=trials, leader=leader)).splitlines()
    start = next(index for index, line in enumerate(lines) if line.startswith("trial"))
    assert [line[:5].strip() for line in lines[start + 1 : start + 4]] == ["11", "10", "* 30"]


@pytest.mark.parametrize(("num_running", "width", "height"), [(32, 80, 24), (256, 80, 24), (256, 120, 40)])
def test_of_many_seats_the_leader_and_the_furthest_are_shown_and_the_others_counted(
    num_running: int, width: int, height: int
) -> None:
    trials = [running_trial(number, percent=number % 90) for number in range(num_running)]
    leader = Leader(number=3, eval_loss=5.0, percent=40)
    text = drawn(running_status(running=trials, leader=leader), width, height)
    lines = text.splitlines()
    start = next(index for index, line in enumerate(lines) if line.startswith("trial"))
    assert lines[start + 1].startswith("* 3 ")
    end = next(index for index, line in enumerate(lines) if line.strip().startswith("and "))
    assert lines[end].startswith(f"  and {num_running - (end - start - 1)} more, 0")
    shown = [int(line[2:6]) % 90 for line in lines[start + 2 : end]]
    assert shown == sorted(shown, reverse=True)
    assert "Best" in text


def test_lines_stay_where_they_are_while_seats_empty_and_fill() -> None:
    screen = Screen()
    wide = drawn(running_status(4), screen=screen).splitlines()
    for number in (2, 0, 3, 4):
        lines = drawn(running_status(number), screen=screen).splitlines()
        assert len(lines) == len(wide)
        assert lines[-2:] == wide[-2:]


def test_columns_do_not_move_sideways_when_values_become_shorter() -> None:
    screen = Screen()
    long, short = running_trial(10), running_trial(11, values={"learning_rate": 1.0, "warmup_ratio": 0.1})
    first = drawn(running_status(running=[long]), screen=screen)
    second = drawn(running_status(running=[short]), screen=screen)
    places = [next(line.index("step") for line in t.splitlines() if "step" in line) for t in (first, second)]
    assert places[0] == places[1]


@pytest.mark.parametrize("width", [20, 40, 60])
def test_a_narrow_terminal_keeps_what_matters_most(width: int) -> None:
    text = drawn(running_status(), width, 24)
    assert "6 of 16" in text
    if width >= 40:
        (heading,) = (line.split() for line in text.splitlines() if line.startswith("trial"))
        assert heading[0] == "trial"
        assert "lr" in heading
        assert "eval" in heading


@pytest.mark.parametrize("height", [1, 3, 6, 9])
def test_a_low_terminal_is_not_overrun(height: int) -> None:
    assert "6 of 16" in drawn(running_status(8), 80, height, events=["a", "b"])


def test_stages_of_the_start_show_how_far_they_are_and_for_how_long() -> None:
    stages = [Stage(name="loading the base", worker=0, done=2**30, total=4 * 2**30, unit="bytes", seconds=12)]
    text = drawn(Status("mine", 8, stages=stages), stages=[Stage(name="starting Ray", seconds=3.2)])
    lines = text.splitlines()
    assert lines[0].endswith("0 of 8 trials")
    assert lines[1] == "starting Ray  3 s"
    assert lines[2] == "worker 0: loading the base, 1.0 of 4.0 GiB  ━━━━────────────  12 s"


def test_what_a_person_has_to_know_is_seen() -> None:
    status = running_status(
        storage_away_seconds=75.0,
        num_put_back=2,
        states={"COMPLETE": 4, "PRUNED": 2, "FAIL": 1, "RUNNING": 4},
    )
    text = drawn(status, notice="Stopping: 4 running trials write checkpoints. " * 3)
    stops = "Stopping: 4 running trials write checkpoints."
    assert " ".join(text.split()).count(stops) == 3  # it is wrapped, and nothing of it is cut
    assert "! the storage has been away for 1 min 15 s" in text
    assert "! 2 trials tried again after running out of memory" in text
    assert "! 1 trial failed" in text


def test_events_are_cut_at_their_end_and_starts_of_trials_left_out() -> None:
    long = "12:00:01  trial 4: failed, loss 6.100 (" + "reason " * 30 + ")"
    start = "12:00:02  trial 7: started on worker 0 seat 3"
    text = drawn(running_status(), events=[start, long])
    line = text.splitlines()[-1]
    assert line.startswith("12:00:01 trial 4: failed, loss 6.100")
    assert line.endswith(" ...")
    assert "trial 7" not in text


def test_of_a_sweep_whose_trials_have_all_ended_no_time_is_left() -> None:
    assert " left" not in drawn(running_status(0, states={"COMPLETE": 16}, seconds_left=10.0))


def test_before_a_trial_is_complete_the_leader_at_its_rung_is_shown() -> None:
    leader = Leader(number=11, eval_loss=5.711, percent=20)
    text = drawn(running_status(best=None, leader=leader, default_loss=None))
    assert "Leads 5.711 at 20% (trial 11)   untouched base 6.934" in text
    empty = drawn(running_status(0, best=None, leader=None, default_loss=None, base_eval_loss=None))
    assert "Leads" not in empty
    assert "Best" not in empty


def test_the_best_by_a_metric_is_shown_with_it() -> None:
    best = {"number": 5, "eval_loss": 5.432, "metric": 0.8123, "values": {}}
    status = running_status(best=best, metric="accuracy", is_objective=True, base_metric=0.25)
    text = drawn(status, 120)
    assert "Best  accuracy 0.812, loss 5.432 (trial 5)   guideline default 6.828" in text
    assert "untouched base 6.934, accuracy 0.25" in text


def test_a_terminal_without_unicode_gets_plain_bars() -> None:
    assert drawn(running_status(), screen=Screen(ASCII_BARS)).isascii()


def test_what_is_too_long_loses_its_end() -> None:
    assert shorten("as it is", 8) == "as it is"
    short = shorten("trial 4: failed because the file /a/very/long/path/data.jsonl is gone", 40)
    assert len(short) <= 40
    assert short == "trial 4: failed because the file /a/ ..."
    assert shorten("two\nlines", 20) == "two lines"


@pytest.mark.parametrize(("ratio", "text"), [(0.0429, "4.3%"), (0.03, "3%"), (0.3667, "37%")])
def test_a_warmup_is_written_as_in_the_answer(ratio: float, text: str) -> None:
    assert short_settings({"warmup_ratio": ratio}) == f"warmup {text}"
    assert settings_text({"warmup_ratio": ratio}) == f"warmup {text}"
