"""The worker: one Tune trainable on one GPU, hosting a pack whose seats train many trials one after another.

Ray Tune keeps the fleet of workers; a Tune trial is a worker, not a trial of the study. Nothing is restored
from Tune's own checkpoints: a restarted worker asks the keeper, and seats go on from their own.
"""

from __future__ import annotations

import json
import os
import time
import traceback
from pathlib import Path
from typing import Any

import ray
from ray import tune

from lora_runner.messages import FAILED, Assignment, SeatReport
from results.files import atomic_write_json
from sweeps.blueprint import Job
from sweeps.keeper import Placed, Reply, SeatTime

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
        ray.get(keeper.rejoin.remote(self.index))
        # Nothing that could still be learned before these trials are drawn: the base takes its time to load.
        keeper.prepare.remote(self.index, job.seats)
        self.session = job.open_session(max(1, len(os.sched_getaffinity(0)) // int(config["workers"])))
        self._last_words = time.monotonic()
        self._last_tokens = 0
        self._busy_seat_seconds = 0.0
        ray.get(keeper.register.remote(self.index, self.session.base_eval_loss))
        self._follow(ray.get(keeper.ask.remote(self.index, self.session.free_seats)))

    def step(self) -> dict[str, Any]:
        """Train until a trial has something to report, and let the keeper answer.

        All seats wait for the answer. If the others trained on meanwhile, the step at which a trial takes
        over a seat would depend on how fast the keeper is, and with it which trial reports first, what the
        sampler knows, and so what a sweep finds.
        """
        taken, started = len(self.session.running), time.monotonic()
        reports = self.session.advance(TURN_SECONDS)
        self._busy_seat_seconds += taken * (time.monotonic() - started)
        for report in reports:
            self._write_down(report)
        self._follow(self._exchange(reports))
        done = self._stopped or not self.session.running
        return {"done": done, "running": len(self.session.running), "num_tokens": self.session.num_tokens}

    def _exchange(self, reports: list[SeatReport]) -> Reply:
        now = time.monotonic()
        elapsed = max(now - self._last_words, 1e-9)
        speed = (self.session.num_tokens - self._last_tokens) / elapsed
        seats = SeatTime(
            busy_seat_seconds=self._busy_seat_seconds,
            seat_seconds=elapsed * self.session.num_seats,
        )
        self._last_words, self._last_tokens = now, self.session.num_tokens
        self._busy_seat_seconds = 0.0
        reply: Reply = ray.get(
            self.keeper.report.remote(self.index, reports, self.session.free_seats, speed, seats)
        )
        return reply

    def _write_down(self, report: SeatReport) -> None:
        """Keep every report in the trial's folder; a result stands there before the study hears of it."""
        folder = Path(self._assignments[report.number].folder)
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / "reports.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(report.to_dict()) + "\n")
        if report.is_end:
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
        if reply.start:
            # Not waited for: the keeper draws while this worker trains, and before it answers it again.
            self.keeper.prepare.remote(self.index)
        broken, too_large = list[SeatReport](), list[tuple[Assignment, str, bool]]()
        for placed in reply.start:
            self._assignments[placed.assignment.number] = placed.assignment
            alone = not self.session.running
            failure = self._place(placed)
            if failure is None:
                continue
            reason, is_memory = failure
            if is_memory:
                too_large.append((placed.assignment, reason, alone))
            else:
                broken.append(SeatReport.empty(placed.assignment).ended(FAILED, reason))
        # After all have been tried: where one does not fit, a smaller one may.
        for assignment, reason, alone in too_large:
            empty = SeatReport.empty(assignment)
            broken.append(self.session.did_not_fit(assignment, empty, reason, alone=alone))
        for report in broken:
            self._write_down(report)
        if broken:
            self._follow(self._exchange(broken))

    def _place(self, placed: Placed) -> tuple[str, bool] | None:
        """Seat a trial; why it could not be seated, in words, and whether that was for want of memory.

        No exception leaves this method, not even inside a report: its traceback would hold what the seat has
        allocated so far, and nobody could use that memory.
        """
        try:
            self.session.place(placed.seat, placed.assignment)
        except Exception as error:
            # The trial's own fault, not the worker's: its neighbours go on.
            folder = Path(placed.assignment.folder)
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "error.txt").write_text(traceback.format_exc(), encoding="utf-8")
            # By name, because only the session's side imports torch.
            is_memory = type(error).__name__ == "OutOfMemoryError"
            line = next(iter(str(error).splitlines()), "")
            return (line if is_memory else f"{type(error).__name__}: {error}"), is_memory
        return None

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Nothing: seats keep their own checkpoints."""

    def load_checkpoint(self, checkpoint: Any) -> None:
        """Nothing: the keeper says what goes on."""
