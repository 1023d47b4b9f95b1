"""What a worker needs of a session, for `lora_runner.session.Session` and for sessions that train nothing.

mypy checks the real session and the substitutes of tests and benchmarks against these protocols.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from lora_runner.protocol import (
    Assignment,
    BaseSamples,
    ComputeRecord,
    SeatReport,
    TrialProgress,
    UnquantizedBase,
)
from sweeps.artifacts.worker_files import Call
from sweeps.study.stages import Stages


class SeatedTrial(Protocol):
    """A trial on its seat."""

    @property
    def assignment(self) -> Assignment: ...


class TrainingSession(Protocol):
    """Trials on the seats of one pack; see `lora_runner.session.Session`."""

    heartbeat: Callable[[], None]
    num_tokens: int

    @property
    def base_eval_loss(self) -> float: ...
    @property
    def base_samples(self) -> BaseSamples | None: ...
    @property
    def base_weights(self) -> str | None: ...
    @property
    def compute_record(self) -> ComputeRecord: ...
    @property
    def num_seats(self) -> int: ...
    @property
    def free_seats(self) -> list[int]: ...
    @property
    def trials(self) -> Sequence[SeatedTrial]: ...

    def measure_base(self) -> float | None: ...
    def start_trial(self, index: int, assignment: Assignment, /) -> None: ...
    def has_trial(self, number: int, /) -> bool: ...
    def remove(self, number: int, /) -> None: ...
    def save(self, number: int, /) -> None: ...
    def advance(self, max_seconds: float, /) -> list[SeatReport]: ...
    def report_out_of_memory(
        self, assignment: Assignment, report: SeatReport, reason: str, /, *, alone: bool
    ) -> SeatReport: ...
    @property
    def checkpoint_seconds(self) -> float | None: ...
    @property
    def eval_tokens(self) -> int: ...
    def progress(self) -> list[TrialProgress]: ...
    def take_written(self) -> list[tuple[Assignment, str]]: ...
    def take_notes(self) -> list[str]: ...


class SessionOpener(Protocol):
    """A worker spec: `sweeps.plan.specs.WorkerSpec` or a substitute."""

    @property
    def seats(self) -> int: ...
    @property
    def stall_seconds(self) -> float: ...
    def measure_unquantized(
        self, num_threads: int, call: Call, alive: Callable[[], None], stages: Stages, /
    ) -> UnquantizedBase: ...
    def open_session(
        self, num_threads: int, call: Call, alive: Callable[[], None], stages: Stages, /
    ) -> TrainingSession: ...
