"""The live view, with and without a terminal."""

from __future__ import annotations

import io
import re
import threading
from collections.abc import Callable
from typing import Any

import pytest
from rich.console import Console

from sweeps.study.status import Status
from sweeps.view.live_view import LiveView
from sweeps.view.stopping import stop_text
from tests.sweeps.view.statuses import running_status


class Script:
    """Answers polls with growing statuses; `used_up` is set after the last one."""

    def __init__(self, *events: list[str] | Exception) -> None:
        self.answers = list(events)
        self.told: list[str] = []
        self.asked_from: list[int] = []
        self.stops = 0
        self.life = "first"
        self.ending = False
        self.used_up = threading.Event()

    def status(self, events_from: int) -> Status:
        self.asked_from.append(events_from)
        if not self.answers:
            self.used_up.set()
        answer = self.answers.pop(0) if self.answers else []
        if isinstance(answer, Exception):
            raise answer
        self.told += answer
        events = self.told[events_from:]
        states = {"COMPLETE": len(self.told)}
        return Status("mine", 8, states=states, events=events, life=self.life, ending=self.ending)

    def request_stop(self) -> None:
        self.stops += 1


def watch(
    script: Script, *, terminal: bool = False, during: Callable[[LiveView], None] = lambda view: None
) -> str:
    out = io.StringIO()
    console = Console(file=out, force_terminal=terminal, width=60, color_system=None)
    with LiveView(console, poll_seconds=0.001) as view, view.follow(script.status, script.request_stop):
        during(view)
        assert script.used_up.wait(10)
    assert not view._painter.is_alive()
    return out.getvalue()


def events_of(text: str) -> list[str]:
    """The lines without their times."""
    return [line.split(" ", 2)[2] for line in text.splitlines()]


def test_without_a_terminal_every_change_is_one_line_and_none_is_repeated() -> None:
    long = "trial 1: pruned (" + "a long reason " * 20 + ")"
    script = Script(["trial 0: started", long], [], [], ["trial 2: complete [bold]"])
    lines = [line for line in events_of(watch(script)) if not line.endswith("starting the workers")]
    # Events that come while a line is printed are printed together, with the count of that moment.
    assert [line.partition("] ")[2] for line in lines] == [
        "trial 0: started",
        " ".join(long.split()),
        "trial 2: complete [bold]",
    ]
    assert lines[-1].startswith("[3 of 8] ")
    assert script.asked_from[:5] == [0, 2, 2, 2, 3]


def test_events_of_the_last_moment_are_printed_at_the_end() -> None:
    script = Script([])
    out = io.StringIO()
    with (
        LiveView(Console(file=out), poll_seconds=60) as view,
        view.follow(script.status, script.request_stop),
    ):
        script.answers = [["trial 9: complete"]]
    assert events_of(out.getvalue())[-1] == "[1 of 8] trial 9: complete"


@pytest.mark.parametrize("terminal", [False, True])
def test_a_wish_to_stop_is_passed_on_once(terminal: bool) -> None:
    script = Script([], [], [], [])
    watch(script, terminal=terminal, during=lambda view: view.stop_wanted.set())
    assert script.stops == 1


def test_it_knows_when_nothing_more_is_handed_out() -> None:
    script, known = Script([], []), []

    def end(view: LiveView) -> None:
        assert script.used_up.wait(10)
        known.append(view.is_ending())
        script.ending = True
        script.answers, _ = [[], []], script.used_up.clear()
        assert script.used_up.wait(10)
        known.append(view.is_ending())

    watch(script, during=end)
    assert known == [False, True]
    stopped = LiveView()
    assert not stopped.is_ending()
    stopped.stop_wanted.set()
    assert stopped.is_ending()


def test_the_end_of_one_keeper_does_not_end_the_next_one() -> None:
    """A confirmation that tunes one rate has two: the second fleet asks before its keeper has answered."""
    view = LiveView(Console(file=io.StringIO()))
    with view:
        with view.follow(lambda _: Status("t", 6, ending=True), lambda: None):
            assert wait_until(view.is_ending)
        with view.follow(lambda _: None, lambda: None):
            assert not view.is_ending()


def test_a_keeper_started_anew_is_asked_to_stop_again() -> None:
    script = Script([], [])

    def stop_and_restart(view: LiveView) -> None:
        view.stop_wanted.set()
        assert script.used_up.wait(10)
        script.life = "second"
        script.answers, _ = [[], [], []], script.used_up.clear()

    watch(script, during=stop_and_restart)
    assert script.stops == 2


@pytest.mark.parametrize(
    ("seconds", "pause"), [(0.001, 0.5), (0.2, 2.0), (60.0, 10.0)], ids=["soon", "slow", "away"]
)
def test_a_slow_status_is_asked_for_less_often(
    monkeypatch: pytest.MonkeyPatch, seconds: float, pause: float
) -> None:
    now = 0.0

    def status(seen: int) -> Status:
        nonlocal now
        now += seconds
        raise TimeoutError

    monkeypatch.setattr("sweeps.view.live_view.time.monotonic", lambda: now)
    view = LiveView(Console(file=io.StringIO()))
    view._poll(status, lambda: None)
    assert view._pause == pytest.approx(pause)


@pytest.mark.parametrize("terminal", [False, True])
def test_a_keeper_that_is_gone_is_said_once_and_ends_nothing(terminal: bool) -> None:
    gone = [ConnectionError("the actor is dead")] * 3
    script = Script(["trial 0: started"], *gone, ["trial 1: started"], [])
    text = watch(script, terminal=terminal)
    said = "the keeper does not answer: ConnectionError"
    assert text.count(said) == 1 if not terminal else said in text
    assert "trial 1: started" in text


def test_a_requested_stop_is_answered_at_once_though_the_keeper_is_silent() -> None:
    out, is_asked, may_answer = io.StringIO(), threading.Event(), threading.Event()

    def status(seen: int) -> Status:
        is_asked.set()
        assert may_answer.wait(10)
        return Status("mine", 8, life="first")

    with LiveView(Console(file=out)) as view, view.follow(status, lambda: None):
        assert is_asked.wait(10)
        view.stop_wanted.set()
        said = wait_until(lambda: "Stopping." in out.getvalue())
        may_answer.set()
    assert said


def wait_until(condition: Callable[[], bool]) -> bool:
    for _ in range(1000):
        if condition():
            return True
        threading.Event().wait(0.01)
    return False


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        (
            {"stop_seconds": 3.2, "steps_at_risk": 6},
            "about 3 s. Ctrl-C again ends it at once and loses at most",
        ),
        ({}, "4 running trials write checkpoints. Ctrl-C again ends it at once and loses what came since"),
    ],
)
def test_a_stop_says_what_it_does_and_what_a_second_one_costs(fields: dict[str, Any], said: str) -> None:
    assert said in stop_text(running_status(**fields))


def test_a_stop_before_anything_trains_promises_nothing() -> None:
    assert stop_text(None) == stop_text(Status("mine", 8)) == "Stopping. Ctrl-C again ends it at once."


def test_workers_are_starting_until_one_is_heard_of() -> None:
    is_training = threading.Event()

    def status(seen: int) -> Status:
        return running_status(1 if is_training.is_set() else 0)

    with LiveView(Console(file=io.StringIO()), poll_seconds=0.001) as view, view.follow(status, lambda: None):
        assert [stage.name for stage in view.stages.now()] == ["starting the workers"]
        is_training.set()
        assert wait_until(lambda: not view.stages.now())


def test_listeners_get_every_status_with_the_stages_of_the_driver() -> None:
    seen: list[Status] = []
    script = Script([], [])
    view = LiveView(Console(file=io.StringIO()), on_status=seen.append, poll_seconds=0.001)
    with view, view.stages.stage("starting Ray"), view.follow(script.status, script.request_stop):
        assert script.used_up.wait(10)
    # No worker has said anything yet.
    names = {stage.name for status in seen for stage in status.stages}
    assert names == {"starting Ray", "starting the workers"}
    assert len(seen) >= 2


@pytest.mark.parametrize("terminal", [True, False])
def test_what_the_study_holds_is_seen_before_a_keeper_answers(terminal: bool) -> None:
    out = io.StringIO()
    console = Console(file=out, force_terminal=terminal, width=80, height=24, color_system=None)
    with LiveView(console, first=running_status()) as view, view.stages.stage("starting Ray"):
        view.input_is_checked()
        assert wait_until(lambda: "starting Ray" in out.getvalue())
    assert ("6 of 16 trials" if terminal else "[6 of 16] starting Ray") in out.getvalue()


def test_the_time_is_that_since_the_command_began() -> None:
    view = LiveView(Console(file=io.StringIO()))
    view._began -= 100
    assert 100 <= view.since_start(Status("mine", 8, elapsed_seconds=3.0)).elapsed_seconds < 200


def test_a_terminal_that_is_made_narrower_is_drawn_anew() -> None:
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, width=100, height=30, color_system=None)
    view = LiveView(console, first=Status("a-sweep-with-a-name", 8))
    with view, view.stages.stage("loading the base " * 5):
        assert wait_until(lambda: "loading the base" in out.getvalue())
        console.width = 50
        assert wait_until(lambda: "\x1b[2J" in out.getvalue())
        assert wait_until(lambda: "0 of 8" in out.getvalue().rpartition("\x1b[2J")[2])
    after = out.getvalue().rpartition("\x1b[2J")[2]
    lines = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]|\r", "\n", after).splitlines()
    assert max(map(len, lines)) <= 50
