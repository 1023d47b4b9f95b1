"""The worker: one Tune trainable on one GPU, hosting a pack whose seats train many trials one after another.

Ray Tune keeps the fleet of workers; a Tune trial is a worker, not a trial of the study. Nothing is restored
from Tune's own checkpoints: a restarted worker asks the keeper, and seats go on from their own.
"""

from __future__ import annotations

import json
import time
import traceback
from pathlib import Path
from typing import Any

import ray
from ray import tune

from lora_runner.messages import FAILED, OUT_OF_MEMORY, Assignment, SeatReport
from results.files import atomic_write_json
from sweeps.blueprint import Job
from sweeps.keeper import Reply

TURN_SECONDS = 5.0
"""Longest time between two words with the keeper, so that a stop is heard soon."""


class Worker(tune.Trainable):  # type: ignore[misc]  # Ray ships no types
    """Loads the base once and keeps its seats filled until the keeper has no more trials."""

    def setup(self, config: dict[str, Any], keeper: Any = None, job: Job | None = None) -> None:
        """Load base and data, measure the untouched base, and take back the trials of an earlier life."""
        assert job is not None
        self.index = int(config["worker"])
        self.keeper = keeper
        self._stopped = False
        self._assignments: dict[int, Assignment] = {}
        self.session = job.open_session()
        ray.get(keeper.register.remote(self.index, self.session.base_eval_loss))
        ray.get(keeper.rejoin.remote(self.index))
        self._last_words = time.monotonic()
        self._last_tokens = 0
        self._follow(ray.get(keeper.ask.remote(self.index, self.session.free_seats)))

    def step(self) -> dict[str, Any]:
        """Train until a trial has something to report, and let the keeper answer."""
        reports = self.session.advance(TURN_SECONDS)
        for report in reports:
            self._write_down(report)
        self._follow(self._exchange(reports))
        done = self._stopped or not self.session.running
        return {"done": done, "running": len(self.session.running), "num_tokens": self.session.num_tokens}

    def _exchange(self, reports: list[SeatReport]) -> Reply:
        now = time.monotonic()
        speed = (self.session.num_tokens - self._last_tokens) / max(now - self._last_words, 1e-9)
        self._last_words, self._last_tokens = now, self.session.num_tokens
        reply: Reply = ray.get(self.keeper.report.remote(self.index, reports, self.session.free_seats, speed))
        return reply

    def _write_down(self, report: SeatReport) -> None:
        """Keep every report in the trial's folder; a result stands there before the study hears of it."""
        folder = Path(self._assignments[report.number].folder)
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / "reports.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(report.to_dict()) + "\n")
        if report.outcome is not None:
            config_hash = self._assignments[report.number].config.hash()
            atomic_write_json(folder / "result.json", report.to_dict() | {"config_hash": config_hash})

    def _follow(self, reply: Reply) -> None:
        """Empty and fill seats as the keeper said."""
        for number in reply.leave:
            if self.session.has(number):
                self.session.remove(number)
        if reply.stop:
            for running in self.session.running:
                self.session.save(running.assignment.number)
            self._stopped = True
            return
        broken = []
        for placed in reply.start:
            self._assignments[placed.assignment.number] = placed.assignment
            try:
                self.session.place(placed.seat, placed.assignment)
            except Exception as error:
                # The trial's own fault, not the worker's: its neighbours go on.
                broken.append(self._failed(placed.assignment, error))
        if broken:
            self._follow(self._exchange(broken))

    def _failed(self, assignment: Assignment, error: Exception) -> SeatReport:
        folder = Path(assignment.folder)
        folder.mkdir(parents=True, exist_ok=True)
        import torch  # late, as in setup: importing this module must not wait for it

        (folder / "error.txt").write_text(traceback.format_exc(), encoding="utf-8")
        # Too large for its seat is an outcome that samplers learn from; anything else is a broken trial.
        outcome = OUT_OF_MEMORY if isinstance(error, torch.OutOfMemoryError) else FAILED
        report = SeatReport.empty(assignment).ended(outcome, f"{type(error).__name__}: {error}")
        self._write_down(report)
        return report

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Nothing: seats keep their own checkpoints."""

    def load_checkpoint(self, checkpoint: Any) -> None:
        """Nothing: the keeper says what goes on."""
