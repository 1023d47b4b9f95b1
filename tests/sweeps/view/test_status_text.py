"""What `sweeps status` shows of a sweep that runs, was stopped, or is finished."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from sweeps.study.status import PAUSED
from sweeps.view.status_text import ago_text, status_lines
from tests.sweeps.view.statuses import running_status, running_trial
from tests.sweeps.watched_sweep import Watched
from tests.sweeps.watched_sweep import watched as watched

NOW = datetime(2026, 11, 28, 22, 13, 30, tzinfo=UTC)


def test_a_running_sweep_shows_its_trials_and_how_to_watch_or_stop_it() -> None:
    lines = [line.plain for line in status_lines(running_status(), None, width=80, run_folder="runs/mine")]
    assert lines[0].endswith("6 of 16 trials (4 complete, 2 pruned)")
    assert "about 2 min left" in lines[1]
    assert sum("12/40" in line for line in lines) == 4
    assert lines[-2:] == ["Next  sweeps watch runs/mine", "      sweeps stop runs/mine"]
    assert max(map(len, lines)) <= 80


def test_of_256_running_trials_those_that_matter_are_listed() -> None:
    lines = status_lines(running_status(256), None, width=80, run_folder="runs/mine")
    assert len(lines) < 40


def test_a_stopped_sweep_says_when_it_stopped_and_where_its_trials_wait(
    watched: Callable[..., Watched],
) -> None:
    answer = watched(turns=3).sweep.read_answer("runs/t")
    paused = [running_trial(number, state="paused", eval_loss=5.7) for number in range(12)]
    status = running_status(
        running=paused,
        states={"COMPLETE": 4, PAUSED: 12},
        is_live=False,
        elapsed_seconds=0.0,
        ended_at=NOW - timedelta(minutes=3),
    )
    lines = [
        line.plain
        for line in status_lines(
            status, answer, width=80, run_folder="runs/t", failures="2 configurations failed.", now=NOW
        )
    ]
    text = "\n".join(lines)
    assert lines[0].startswith("docstrings-5M: interrupted at ")
    assert ", 3 min ago   12 trials wait to go on" in lines[0]
    assert "  trial 1 at step 12/40, loss 5.700: lr 2.99e-3, sched cosine, warmup 3%" in lines
    assert "  and 4 more" in lines
    assert "Failed: 2 configurations failed." in lines
    assert "Next  sweeps run runs/t " in text
    assert "running" not in text
    assert max(map(len, lines)) <= 80


def test_a_finished_sweep_shows_its_answer_alone(watched: Callable[..., Watched]) -> None:
    answer = watched().sweep.read_answer("runs/t")
    status = running_status(0, states={"COMPLETE": 16}, is_live=False)
    shown = status_lines(status, answer, width=80, run_folder="runs/t", report="runs/t/report.html")
    lines = [line.plain for line in shown]
    assert lines[0].startswith("Done: ")
    assert any(line.startswith("Use   learning_rate ") for line in lines)
    assert lines[-1].strip() == "runs/t/report.html"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (5, "just now"),
        (200, "3 min ago"),
        (3700, "1 hour ago"),
        (50_000, "13 hours ago"),
        (90_000, "1 day ago"),
        (900_000, "10 days ago"),
    ],
)
def test_how_long_ago_is_said_in_one_unit(seconds: float, text: str) -> None:
    assert ago_text(seconds) == text


def test_a_sweep_that_stopped_on_another_day_says_which(watched: Callable[..., Watched]) -> None:
    answer = watched(turns=2).sweep.read_answer("runs/t")
    status = replace(running_status(), is_live=False, ended_at=NOW - timedelta(days=3))
    first = status_lines(status, answer, width=80, run_folder="runs/t", now=NOW)[0].plain
    assert "interrupted on 25 Nov 2026 at" in first
    assert "3 days ago" in first


def test_frozen_trials_of_a_sweep_that_is_not_running_are_named(watched: Callable[..., Watched]) -> None:
    status, answer = running_status(0, is_live=False), watched().sweep.read_answer("runs/t")
    states = ["frozen", "at_rest", *["frozen"] * 8]
    status.frozen_trials = [
        running_trial(n, state=state, step=24, percent=60) for n, state in enumerate(states)
    ]
    lines = [line.plain for line in status_lines(status, answer, width=110, run_folder="runs/t")]
    assert "trial 0: frozen at step 24 of 40: kept on disk, may go on; loss 5.700" in lines
    assert (
        "trial 1: frozen at step 24 of 40: kept on disk, may go on if `trials` is raised; loss 5.701" in lines
    )
    assert "and 2 more are frozen" in lines


def test_frozen_trials_are_shown_whole_in_80_columns(watched: Callable[..., Watched]) -> None:
    status, answer = running_status(0, is_live=False), watched().sweep.read_answer("runs/t")
    status.frozen_trials = [running_trial(12, state="at_rest", step=24, percent=60)]
    lines = [line.plain for line in status_lines(status, answer, width=80, run_folder="runs/t")]
    at = next(n for n, line in enumerate(lines) if line.startswith("trial 12: "))
    whole = "trial 12: frozen at step 24 of 40: kept on disk, may go on if `trials` is raised; loss 5.712"
    assert f"{lines[at]} {lines[at + 1].strip()}" == whole
    assert max(map(len, lines)) <= 80
