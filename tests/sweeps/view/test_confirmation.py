"""What is seen of a confirmation while it runs: its configurations, and no lucky seed."""

from __future__ import annotations

from typing import Any

from sweeps.study.status import ArmProgress, Status
from sweeps.view.phrases import counts_text
from sweeps.view.plain_lines import PlainLines
from sweeps.view.screen import Screen
from sweeps.view.stopping import stop_text
from tests.sweeps.view.statuses import running_status, running_trial

ARMS = [
    ArmProgress(name="best", finished=2, running=1, eval_loss=6.7731),
    ArmProgress(name="guideline default", finished=1, ended_early=1, eval_loss=6.9),
    ArmProgress(name="learning_rate 2e-4"),
]
RUN = running_trial(3, values={"configuration": "guideline default", "seed": 11})


def confirming(**fields: Any) -> Status:
    known = {"task": "confirm", "best": None, "leader": None, "default_loss": None, "arms": ARMS}
    return running_status(0, **{**known, "target": 9, "running": [RUN], **fields})


def test_each_configuration_has_a_line_with_its_seeds_and_its_mean() -> None:
    lines = [line.plain for line in Screen().lines(confirming(), width=80, height=24)]
    assert lines[0].endswith("  6 of at most 9 runs")
    assert "best                2 seeds done, mean loss 6.773, 1 running" in lines
    assert "guideline default   1 seed done, mean loss 6.900, 1 ended early" in lines
    assert "learning_rate 2e-4  0 seeds done" in lines
    (heading,) = [line.split() for line in lines if line.startswith("run ")]
    assert heading[:3] == ["run", "configuration", "seed"]
    assert any(line.split()[:4] == ["3", "guideline", "default", "11"] for line in lines)
    assert "trial" not in "\n".join(lines)


def test_of_many_configurations_as_many_are_shown_as_there_is_room_for() -> None:
    arms = [ArmProgress(name=f"learning_rate {number}e-4") for number in range(20)]
    lines = Screen().lines(confirming(arms=arms), width=40, height=24)
    text = "\n".join(line.plain for line in lines)
    assert "and 13 more configurations" in text
    assert max(line.cell_len for line in lines) <= 40


def test_a_log_tells_of_runs_and_of_each_new_mean() -> None:
    plain = PlainLines()
    status = confirming(running=[])
    first = plain.lines(status, ["trial 3: complete, loss 6.051", "worker 0: lost its trial"])
    told = [line.split("] ", 1)[1] for line in first]
    assert told == [
        "run 3: complete, loss 6.051",
        "worker 0: lost its trial",
        "best: 2 seeds done, mean loss 6.773, 1 running",
        "guideline default: 1 seed done, mean loss 6.900, 1 ended early",
    ]
    assert plain.lines(status) == []


def test_a_stop_and_a_start_speak_of_runs_too() -> None:
    assert "Stopping: 1 run writes" in stop_text(confirming())
    assert counts_text(Status("mine", 0, task="confirm")) == "0 runs"
