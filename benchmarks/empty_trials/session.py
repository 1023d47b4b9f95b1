"""A session and a study spec for trials that train nothing; keeper, fleet and worker are the real ones."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from benchmarks.empty_trials.losses import (
    LEARNING_RATES,
    REDUCTION_FACTOR,
    REPORT_PERCENTS,
    SCHEDULERS,
    SEED,
    WARMUP_RATIOS,
    loss_of,
)
from lora_runner.protocol import (
    COMPLETE,
    Assignment,
    ComputeRecord,
    SeatReport,
    TrialProgress,
    UnquantizedBase,
)
from search_spaces import load_guidelines, space_for
from sweeps.config.sections.search import SearchSection
from sweeps.plan.specs import StudySpec

MAX_STEPS = 100


@dataclass
class EmptyTrial:
    """A trial in its seat."""

    assignment: Assignment
    reports: int = 0


@dataclass
class EmptySession:
    """A `TrainingSession` whose trials report at once and end complete; mypy checks that it is one."""

    num_seats: int
    base_eval_loss: float = 10.0
    base_weights: None = None
    compute_record = ComputeRecord(device="none", path="none", details=())
    base_samples = None
    num_tokens: int = 0
    eval_tokens: int = 0
    checkpoint_seconds: None = None
    seats: dict[int, EmptyTrial] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.heartbeat: Callable[[], None] = lambda: None

    @property
    def free_seats(self) -> list[int]:
        """Seats without a trial."""
        return [seat for seat in range(self.num_seats) if seat not in self.seats]

    @property
    def trials(self) -> list[EmptyTrial]:
        """Trials on their seats."""
        return list(self.seats.values())

    def start_trial(self, index: int, assignment: Assignment) -> None:
        """Seat a trial."""
        self.seats[index] = EmptyTrial(assignment)

    def has_trial(self, number: int) -> bool:
        """Whether a trial has a seat."""
        return any(seated.assignment.number == number for seated in self.trials)

    def remove(self, number: int) -> None:
        """Free a trial's seat."""
        self.seats = {seat: it for seat, it in self.seats.items() if it.assignment.number != number}

    def save(self, number: int) -> None:
        """Nothing to save."""

    def measure_base(self) -> float | None:
        """No metric."""
        return None

    def report_out_of_memory(
        self, assignment: Assignment, report: SeatReport, reason: str, *, alone: bool
    ) -> SeatReport:
        """Never called: nothing is allocated."""
        return report

    def take_written(self) -> list[tuple[Assignment, str]]:
        """Nothing was written."""
        return []

    def take_notes(self) -> list[str]:
        """Nothing happened."""
        return []

    def progress(self) -> list[TrialProgress]:
        """Nothing between two reports."""
        return []

    def advance(self, max_seconds: float) -> list[SeatReport]:
        """Return the next report of every seat, without any work."""
        return [self._next(seated) for seated in self.trials]

    def _next(self, seated: EmptyTrial) -> SeatReport:
        percent = REPORT_PERCENTS[seated.reports]
        seated.reports += 1
        loss = loss_of(seated.assignment.config.learning_rate, percent)
        report = replace(SeatReport.empty(seated.assignment), percent=percent, step=percent, eval_loss=loss)
        if percent < 100:
            return report
        self.remove(seated.assignment.number)
        return report.ended(COMPLETE, "used its full budget of nothing")


@dataclass(frozen=True)
class EmptyWorkerSpec:
    """A `SessionOpener` whose session trains nothing."""

    seats: int
    stall_seconds: float = 60.0

    def measure_unquantized(self, num_threads: int, call: Any, alive: Any, stages: Any) -> UnquantizedBase:
        """There is no base."""
        return UnquantizedBase(reason="nothing is loaded")

    def open_session(self, num_threads: int, call: Any, alive: Any, stages: Any) -> EmptySession:
        """Open a session without base, data or torch."""
        return EmptySession(self.seats)


def empty_study_spec(folder: Path, trials: int) -> StudySpec:
    """A real study spec: three dimensions, TPE, successive halving."""
    low, high = LEARNING_RATES
    shortest, longest = WARMUP_RATIOS
    space = space_for(
        scenario="general",
        model_size=8e9,
        max_steps=MAX_STEPS,
        train_embeddings=False,
        overrides={
            "learning_rate": {"low": low, "high": high, "log": True},
            "lr_scheduler_type": {"choices": list(SCHEDULERS)},
            "warmup_ratio": {"low": shortest, "high": longest},
        },
    )
    search = SearchSection(
        sampler="tpe",
        pruner="successive_halving",
        pruner_options={"reduction_factor": REDUCTION_FACTOR},
        seed=SEED,
    )
    return StudySpec(
        name="empty",
        run_folder=str(folder),
        space=space,
        trials=trials,
        search=search.model_dump(),
        report_at=REPORT_PERCENTS,
        constants={"max_steps": MAX_STEPS, "per_device_train_batch_size": 8},
        scheduler_kwargs={},
        identity={"metric": "eval_loss", "space": space.fingerprint()},
        context={"model": "none"},
        guidelines=load_guidelines().to_list(),
    )
