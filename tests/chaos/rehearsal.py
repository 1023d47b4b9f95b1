"""A sweep that trains nothing: driver, keeper, workers, files and study are real, trials have known results.

A trial's state is a number that every step maps to the next one, so a step that is lost, taken twice or taken
from the wrong checkpoint shows in its losses. Depending on its configuration, a trial may diverge, run out of
memory, hang once, raise, or kill its worker.
"""

from __future__ import annotations

import json
import math
import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy
from safetensors.numpy import save_file

from files_and_text.atomic_files import atomic_write_json, whole_folder
from lora_runner.config import TrialConfig
from lora_runner.protocol import (
    COMPLETE,
    DIVERGED,
    FAILED,
    OUT_OF_MEMORY,
    PUT_BACK,
    Assignment,
    ComputeRecord,
    SeatReport,
    TrialProgress,
    UnquantizedBase,
)
from search_spaces import load_guidelines, space_for
from sweeps.fleet.training_session import SessionOpener
from sweeps.plan.blueprint import Blueprint
from sweeps.plan.specs import StudySpec, WorkerSpec
from sweeps.study.stages import Stages
from sweeps.sweep import Sweep

STEPS = 40
REPORT_AT = (20, 40, 60, 80, 100)
NUM_KINDS = 32
"""Of every 32 configurations one is of each kind below, the others are `plain`."""
KINDS = {0: "diverges", 1: "no memory", 2: "hangs", 3: "breaks", 4: "kills its worker"}


def kind_of(config: TrialConfig) -> str:
    """How a trial ends, by its configuration."""
    return KINDS.get(int(config.hash(), 16) % NUM_KINDS, "plain")


def next_state(state: float, config: TrialConfig) -> float:
    """One step of training."""
    return math.fmod(state * 1.7 + config.learning_rate * 1e4 + config.warmup_steps, 1.0)


def loss_at(state: float, step: int) -> float:
    """The evaluation loss after a step."""
    return 2.0 + state + 1.0 / (1 + step)


@dataclass(frozen=True)
class Expected:
    """The result of an undisturbed run of a trial."""

    outcome: str
    reports: dict[int, float]


def expected(config: TrialConfig) -> Expected:
    """Computed directly from the configuration."""
    kind = kind_of(config)
    state, reports = 0.5, {}
    last = {"diverges": 60, "no memory": 0, "breaks": 0, "kills its worker": 0}.get(kind, 100)
    for step in range(1, STEPS + 1):
        state = next_state(state, config)
        percent = 100 * step // STEPS
        if percent in REPORT_AT and 100 * step % STEPS == 0 and percent <= last:
            reports[percent] = loss_at(state, step)
    outcome = {
        "diverges": DIVERGED,
        "no memory": OUT_OF_MEMORY,
        "breaks": FAILED,
        "kills its worker": FAILED,
    }.get(kind, COMPLETE)
    if outcome == DIVERGED:
        reports.pop(60)
    return Expected(outcome, reports)


class OutOfMemoryError(RuntimeError):
    """Recognised by its name."""


@dataclass
class Seated:
    """A trial on its seat."""

    assignment: Assignment
    step: int = 0
    state: float = 0.5
    saved_at: float = field(default_factory=time.monotonic)
    saved_step: int = 0


class RehearsedSession:
    """A `TrainingSession`; mypy checks that it is one."""

    base_eval_loss = 9.0
    base_weights = None
    compute_record = ComputeRecord(device="none", path="none", details=())
    base_samples = None
    eval_tokens = 0

    def __init__(self, seats: int, folder: Path, step_seconds: float, checkpoint_every: float) -> None:
        self.seats: list[Seated | None] = [None] * seats
        self.folder = folder
        self.step_seconds = step_seconds
        self.checkpoint_every = checkpoint_every
        self.checkpoint_seconds: float | None = None
        self.num_tokens = 0
        self.closed: set[int] = set()
        self.heartbeat: Callable[[], None] = lambda: None
        self._written: list[tuple[Assignment, str]] = []
        self._wanted: list[int] = []

    @property
    def trials(self) -> list[Seated]:
        return [seated for seated in self.seats if seated is not None]

    @property
    def free_seats(self) -> list[int]:
        return [i for i, seated in enumerate(self.seats) if seated is None and i not in self.closed]

    @property
    def num_seats(self) -> int:
        return len(self.seats) - len(self.closed)

    def has_trial(self, number: int) -> bool:
        return any(seated.assignment.number == number for seated in self.trials)

    def remove(self, number: int) -> None:
        self.seats = [
            None if seated is not None and seated.assignment.number == number else seated
            for seated in self.seats
        ]

    def start_trial(self, index: int, assignment: Assignment) -> None:
        assert index in self.free_seats
        kind = kind_of(assignment.config)
        if kind == "no memory":
            raise OutOfMemoryError("no memory for this one")
        if kind == "breaks":
            raise ValueError("a shape that fits nothing")
        seated = Seated(assignment)
        folder = Path(assignment.folder)
        for name in ("checkpoint", "checkpoint.previous"):
            try:
                saved = json.loads((folder / name / "state.json").read_text(encoding="utf-8"))
            except (OSError, ValueError):
                continue
            seated.step, seated.state = saved["step"], saved["state"]
            seated.saved_step = seated.step
            break
        self.seats[index] = seated

    def report_out_of_memory(
        self, assignment: Assignment, report: SeatReport, reason: str, *, alone: bool
    ) -> SeatReport:
        return report.ended(OUT_OF_MEMORY if alone or assignment.put_back else PUT_BACK, reason)

    def save(self, number: int) -> None:
        seated = next(s for s in self.trials if s.assignment.number == number)
        with whole_folder(Path(seated.assignment.folder) / "checkpoint") as temporary:
            atomic_write_json(temporary / "state.json", {"step": seated.step, "state": seated.state})
        seated.saved_at, seated.saved_step = time.monotonic(), seated.step
        self.checkpoint_seconds = 0.01
        self._written.append((seated.assignment, "checkpoint"))

    def measure_base(self) -> float | None:
        return None

    def take_written(self) -> list[tuple[Assignment, str]]:
        written, self._written = self._written, []
        return written

    def take_notes(self) -> list[str]:
        return []

    def progress(self) -> list[TrialProgress]:
        return [
            TrialProgress(
                number=seated.assignment.number,
                attempt=seated.assignment.attempt,
                step=seated.step,
                max_steps=STEPS,
                num_tokens=10 * seated.step,
                train_loss=seated.state,
                checkpoint_step=seated.saved_step,
            )
            for seated in self.trials
        ]

    def advance(self, max_seconds: float) -> list[SeatReport]:
        for number in self._wanted:
            if self.has_trial(number):
                self.save(number)
        self._wanted = []
        reports: list[SeatReport] = []
        deadline = time.monotonic() + max_seconds
        while self.trials and not reports and time.monotonic() < deadline:
            time.sleep(self.step_seconds)
            for seated in self.trials:
                report = self._step(seated)
                if report is not None:
                    reports.append(report)
            self.heartbeat()
        return reports

    def _step(self, seated: Seated) -> SeatReport | None:
        config, number = seated.assignment.config, seated.assignment.number
        kind = kind_of(config)
        seated.step += 1
        seated.state = next_state(seated.state, config)
        self.num_tokens += 10
        if kind == "kills its worker" and seated.step == 3:
            os.kill(os.getpid(), signal.SIGKILL)
        marker = self.folder / f"hung-{number}"
        if kind == "hangs" and seated.step == 25 and not marker.exists():
            marker.touch()
            time.sleep(3600)
        percent = 100 * seated.step // STEPS
        if percent not in REPORT_AT or 100 * seated.step % STEPS:
            return None
        empty = replace(SeatReport.empty(seated.assignment), percent=percent, step=seated.step, num_tokens=10)
        if kind == "diverges" and percent == 60:
            self.remove(number)
            return empty.ended(DIVERGED, "it was to diverge")
        report = replace(empty, eval_loss=loss_at(seated.state, seated.step))
        if percent < 100:
            if time.monotonic() - seated.saved_at >= self.checkpoint_every:
                self._wanted.append(number)
            return report
        with whole_folder(Path(seated.assignment.folder) / "adapter") as temporary:
            save_file({"w": numpy.zeros((2, 2), numpy.float32)}, temporary / "adapter_model.safetensors")
            atomic_write_json(temporary / "adapter_config.json", {"peft_type": "LORA", "r": 1})
        self._written.append((seated.assignment, "adapter"))
        self.remove(number)
        return report.ended(COMPLETE, "used its full budget")


@dataclass(frozen=True)
class RehearsedWorkerSpec:
    """A `SessionOpener`, in place of `sweeps.plan.specs.WorkerSpec`."""

    seats: int
    folder: str
    step_seconds: float
    checkpoint_seconds: float = 0.3
    stall_seconds: float = 10.0

    def measure_unquantized(self, num_threads: int, call: Any, alive: Any, stages: Any) -> UnquantizedBase:
        """There is no base."""
        return UnquantizedBase(reason="nothing is loaded")

    def open_session(self, num_threads: int, call: Any, alive: Any, stages: Any) -> RehearsedSession:
        """No base, no data, no torch."""
        return RehearsedSession(self.seats, Path(self.folder), self.step_seconds, self.checkpoint_seconds)


class RehearsedSweep(Sweep):
    """A sweep whose blueprint needs neither a model nor data."""

    step_seconds = 0.03

    def plan(self, stages: Stages | None = None, **options: Any) -> Blueprint:
        """A real study spec, and a worker spec that trains nothing."""
        config = self.config
        space = space_for(scenario="general", model_size=8.03e9, max_steps=STEPS, train_embeddings=True)
        study_spec = StudySpec(
            name=config.name,
            run_folder=str(config.run_folder.absolute()),
            space=space,
            trials=config.trials,
            search=config.search.model_dump(),
            report_at=REPORT_AT,
            constants={"max_steps": STEPS, "per_device_train_batch_size": 8, "lora_r": 8, "lora_alpha": 16},
            scheduler_kwargs={},
            identity={"metric": "eval_loss", "space": space.fingerprint()},
            context={"model": "none", "max_steps": STEPS, "chat_template": None},
            guidelines=load_guidelines().to_list(),
            reliability=config.reliability,
        )
        seats = config.seats if isinstance(config.seats, int) else 3
        worker_spec: SessionOpener = RehearsedWorkerSpec(
            seats, str(config.run_folder.absolute()), self.step_seconds
        )
        silent = SimpleNamespace(notices=(), warnings=())
        drawn = SimpleNamespace(
            config=config,
            study_spec=study_spec,
            worker_spec=cast(WorkerSpec, worker_spec),
            data=silent,
            tokenizer=SimpleNamespace(save_pretrained=lambda folder: None),
        )
        return cast(Blueprint, drawn)
