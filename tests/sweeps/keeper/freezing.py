"""A pack that freezes trials, and sweeps whose frozen trials have to be taken up again."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from lora_runner.config import TrialConfig
from lora_runner.protocol import SeatReport
from sweeps.keeper.keeper import Keeper
from sweeps.keeper.protocol import Reply
from tests.sweeps.conftest import SimulatedPack

Make = Callable[..., Keeper]
PERCENTS = (20, 40, 60, 80, 100)


def late(config: TrialConfig, percent: int) -> float:
    """Low rates lead early and high ones win, so that frozen trials have to be taken up again."""
    rate = config.learning_rate / 2e-4
    warmup = 0.01 * config.warmup_steps / config.max_steps
    return 3.0 - 0.05 * rate * percent / 100 + 0.2 * rate * (1 - percent / 100) ** 2 + warmup


class FreezingPack(SimulatedPack):
    """Writes checkpoints as a worker does, and resumes from them."""

    resumed: dict[int, int]
    """Trial -> percent of the checkpoint that it last started from."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.resumed = {}
        self.metric: Callable[[TrialConfig, int], float] | None = None
        """(config, percent) -> the metric of a report that measures one."""

    def follow(self, reply: Reply) -> Reply:
        for assignment in self.seats.values():
            if assignment.number in reply.freeze:
                self.checkpoint(assignment)
        super().follow(reply)
        for placed in reply.start:
            done = self.checkpointed(placed.assignment)
            self.turns[placed.assignment.number] = done
            self.resumed[placed.assignment.number] = self.report_at[done - 1] if done else 0
        return reply

    def reports(self) -> list[SeatReport]:
        seated = {assignment.number: assignment.config for assignment in self.seats.values()}
        reports, spec = super().reports(), self.keeper.study_spec.metric
        if self.metric is None or spec is None:
            return reports
        return [
            replace(report, metric=self.metric(seated[report.number], report.percent))
            if spec.is_measured(report.percent, self.report_at)
            else report
            for report in reports
        ]

    def checkpoint(self, assignment: Any) -> None:
        folder = Path(assignment.folder) / "checkpoint"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "state.json").write_text(json.dumps({"step": self.turns[assignment.number]}))

    def checkpointed(self, assignment: Any) -> int:
        file = Path(assignment.folder) / "checkpoint" / "state.json"
        return int(json.loads(file.read_text())["step"]) if file.exists() else 0


def frozen_in(keeper: Keeper, stored: Any) -> list[int]:
    return [t.number for t in stored(keeper) if t.user_attrs.get("frozen") is not None]


def checkpointed(keeper: Keeper) -> list[int]:
    """Trials that have a checkpoint on disk."""
    return sorted(int(path.parent.name) for path in keeper.folder.glob("trials/*/checkpoint"))


def all_ended(keeper: Keeper, stored: Any) -> bool:
    """Whether every trial has ended, or is at rest."""
    trials = stored(keeper)
    return all(t.state.is_finished() or t.user_attrs.get("at_rest") for t in trials)


def run_until(pack: SimulatedPack, holds: Callable[[], bool]) -> None:
    pack.ask()
    while not holds():
        assert pack.seats, "the sweep ended before"
        pack.turn()
