"""Statuses made by hand, as a keeper would give them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from sweeps.study.status import Leader, RunningTrial, Status

SCHEDULERS = ("constant", "cosine", "linear")


def running_trial(number: int, **fields: Any) -> RunningTrial:
    """A trial on seat `number` that is at 30% of 40 steps."""
    scheduler = SCHEDULERS[number % 3]
    values: dict[str, Any] = {"learning_rate": 5.98e-3 / (number + 1), "lr_scheduler_type": scheduler}
    if scheduler != "constant":
        values["warmup_ratio"] = 0.03
    known: dict[str, Any] = {
        "number": number,
        "worker": 0,
        "seat": number,
        "percent": 30,
        "step": 12,
        "max_steps": 40,
        "train_loss": 5.9,
        "eval_loss": 5.7 + number / 1000,
        "values": values,
    }
    return RunningTrial(**(known | fields))


def running_status(num_running: int = 4, **fields: Any) -> Status:
    """6 of 16 trials finished, trial 5 the best, `num_running` running."""
    status = Status(
        "docstrings-5M",
        16,
        states={"COMPLETE": 4, "PRUNED": 2, "RUNNING": num_running},
        outcomes={"complete": 4, "pruned": 2},
        running=[running_trial(10 + index) for index in range(num_running)],
        leader=Leader(number=5, eval_loss=5.432, percent=100),
        best={
            "number": 5,
            "eval_loss": 5.432,
            "values": {"learning_rate": 5.98e-3, "lr_scheduler_type": "constant"},
        },
        default_loss=6.828,
        base_eval_loss=6.934,
        devices=["2 CPU cores"],
        tokens_per_second=1240.4,
        elapsed_seconds=95.0,
        seconds_left=123.0,
        is_live=True,
    )
    return replace(status, **fields)
