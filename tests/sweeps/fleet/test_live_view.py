"""The live view, with and without a terminal."""

from __future__ import annotations

import io
import threading
from collections.abc import Callable

import pytest
from rich.console import Console

from sweeps.fleet.live_view import LiveView, duration, status_table
from sweeps.study.status import RunningTrial, Status


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
    with LiveView(script.status, script.request_stop, console, poll_seconds=0.001) as view:
        during(view)
        assert script.used_up.wait(10)
    assert not view._thread.is_alive()
    return out.getvalue()


def test_without_a_terminal_every_change_is_one_line_and_none_is_repeated() -> None:
    long = "trial 1: pruned (" + "a long reason " * 20 + ")"
    script = Script(["trial 0: started", long], [], [], ["trial 2: complete [bold]"])
    assert watch(script).splitlines() == [
        "[2 of 8 finished] trial 0: started",
        f"[2 of 8 finished] {long}",
        "[3 of 8 finished] trial 2: complete [bold]",
    ]
    assert script.asked_from[:5] == [0, 2, 2, 2, 3]


def test_events_of_the_last_moment_are_printed_at_the_end() -> None:
    script = Script([])
    out = io.StringIO()
    with LiveView(script.status, script.request_stop, Console(file=out), poll_seconds=60):
        script.answers = [["trial 9: complete"]]
    assert out.getvalue() == "[1 of 8 finished] trial 9: complete\n"


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
    stopped = LiveView(script.status, script.request_stop)
    assert not stopped.is_ending()
    stopped.stop_wanted.set()
    assert stopped.is_ending()


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

    monkeypatch.setattr("sweeps.fleet.live_view.time.monotonic", lambda: now)
    view = LiveView(status, lambda: None, Console(file=io.StringIO()))
    assert view._poll() is None
    assert view._pause == pytest.approx(pause)


@pytest.mark.parametrize("terminal", [False, True])
def test_a_keeper_that_is_gone_is_said_once_and_ends_nothing(terminal: bool) -> None:
    gone = [ConnectionError("the actor is dead")] * 3
    script = Script(["trial 0: started"], *gone, ["trial 1: started"], [])
    text = watch(script, terminal=terminal)
    assert text.count("the keeper does not answer: ConnectionError") == 1
    assert "trial 1: started" in text


def test_a_live_table_shows_the_facts_in_a_terminal() -> None:
    text = watch(Script(["trial 0: started"], ["trial 1: started"], [], [], []), terminal=True)
    assert "2 of 8 finished" in text
    assert "trial 1: started" in text


def test_the_table_compares_the_best_with_the_guideline_default() -> None:
    status = Status(
        "mine [v2]",
        12,
        states={"COMPLETE": 3, "PRUNED": 2, "RUNNING": 2},
        outcomes={"complete": 3, "pruned": 1, "diverged": 1},
        running=[
            RunningTrial(number=5, percent=40, eval_loss=2.51234),
            RunningTrial(number=6),
        ],
        is_live=True,
        best={"number": 4, "eval_loss": 2.4, "params": {}},
        default_loss=2.5,
        base_eval_loss=3.25,
        tokens_per_second=12345.6,
        seconds_left=95.0,
        elapsed_seconds=40.0,
    )
    lines = rendered(status)
    for fact in (
        "mine [v2]",
        "5 of 12 finished (3 complete, 1 diverged, 1 pruned)",
        "#5 40% 2.512  #6 0%",
        "3.2500 nats per token",
        "2.4000 (trial 4, 0.1000 below the guideline default)",
        "12,346 tokens/s, about 1 min 35 s left",
        "trial 4: complete",
    ):
        assert any(fact in line for line in lines), (fact, lines)


def test_the_table_of_a_sweep_at_rest_or_without_results_says_nothing_it_does_not_know() -> None:
    assert "\n".join(rendered(Status("mine", 12))).count("finished") == 1
    assert not any("tokens/s" in line or "best" in line for line in rendered(Status("mine", 12)))
    left = Status("mine", 12, running=[RunningTrial(number=5, percent=40)])
    assert any(line.split() == ["paused", "#5", "40%"] for line in rendered(left))
    worst = Status("mine", 12, best={"number": 0, "eval_loss": 2.5, "params": {}}, default_loss=2.5)
    assert any(line.rstrip().endswith("2.5000 (trial 0)") for line in rendered(worst))


def rendered(status: Status) -> list[str]:
    console = Console(file=io.StringIO(), width=100)
    with console.capture() as capture:
        console.print(status_table(status, ["trial 4: complete"]))
    return capture.get().splitlines()


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0 s"), (59.6, "1 min 0 s"), (95, "1 min 35 s"), (3600, "1 h 0 min"), (90061, "25 h 1 min")],
)
def test_durations_are_read_at_a_glance(seconds: float, text: str) -> None:
    assert duration(seconds) == text
