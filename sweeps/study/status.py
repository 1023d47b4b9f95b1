"""The state of a sweep at one moment: what the live view, `sweeps status` and the watch page show."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any, Literal

from optuna.trial import TrialState

from files_and_text.numbers import plural
from files_and_text.plain_values import plain
from files_and_text.shown import Shown
from search_spaces.dimension import Value
from sweeps.study.study import COUNTED_STATES

FROZEN, AT_REST = "FROZEN", "AT_REST"
"""In `Status.states`: stopped early, and may be taken up again; once the sweep has ended, only if `trials` is
raised."""
PAUSED = "PAUSED"
"""In `Status.states`: started, not ended, and nothing trains them now."""


@dataclass(frozen=True, kw_only=True)
class RunningTrial:
    """A trial that has started and not ended."""

    number: int
    worker: int | None = None
    seat: int | None = None
    state: Literal["training", "paused", "unfinished", "frozen", "at_rest"] = "training"
    """paused: waits for a seat or for the next run; unfinished: nobody knows whether it trains; frozen and
    at_rest as in `Status.states`."""
    percent: int = 0
    """Of its budget, as far as it is known: by its last step, else by its last report."""
    step: int | None = None
    """Optimizer steps done; of a paused trial, those that its checkpoint holds. None: not known."""
    max_steps: int | None = None
    eval_loss: float | None = None
    """Of the last evaluation."""
    train_loss: float | None = None
    """Of the last step."""
    values: Mapping[str, Value] = field(default_factory=dict)
    """The searched hyperparameters, in the order of `PARAMETER_ORDER`; in a confirmation the name of the
    configuration and the seed."""
    tokens_per_second: float | None = None
    checkpoint_step: int | None = None
    """Steps that are safe if everything ends now; None: not known."""


@dataclass(frozen=True, kw_only=True)
class Stage:
    """What a start is doing now, such as `loading the base`."""

    name: str
    worker: int | None = None
    """None: the driver."""
    done: float = 0.0
    total: float | None = None
    """In the same unit as `done`; None: not known."""
    unit: str = ""
    """`bytes`, or a plural such as `checks`."""
    seconds: float = 0.0
    """How long it has been going on."""


@dataclass(frozen=True, kw_only=True)
class Leader:
    """The trial that leads now: the best complete one; before there is one, the best at the highest percent
    that any trial has reported.
    """

    number: int
    eval_loss: float | None
    percent: int
    """Of its budget, at which it has this loss."""


@dataclass(frozen=True, kw_only=True)
class ArmProgress:
    """How far one configuration of a confirmation is."""

    name: str
    finished: int = 0
    """Runs that used their full budget."""
    ended_early: int = 0
    running: int = 0
    eval_loss: float | None = None
    """Mean over the finished runs."""


@dataclass(repr=False)
class Status(Shown):
    """A snapshot for the live view, the end of a run and `sweeps status`."""

    name: str
    target: int
    """Finished trials of the whole sweep; failed ones do not count."""
    task: Literal["run", "confirm"] = "run"
    states: dict[str, int] = field(default_factory=dict)
    """Trials by Optuna's state; a prefetched one counts as WAITING, though Optuna has it RUNNING, and a
    started one as PAUSED when no process works on the study."""
    outcomes: dict[str, int] = field(default_factory=dict)
    running: list[RunningTrial] = field(default_factory=list)
    """Every trial that has started and not ended; none that is frozen."""
    frozen_trials: list[RunningTrial] = field(default_factory=list)
    """Trials that were stopped early and may be taken up again."""
    stages: list[Stage] = field(default_factory=list)
    """What the driver and the workers are doing that is not training; a worker that trains has none."""
    leader: Leader | None = None
    """None in a confirmation, as `best`: the luckiest seed is no answer."""
    arms: list[ArmProgress] = field(default_factory=list)
    """The configurations of a confirmation."""
    metric: str | None = None
    """Name of the metric, if one is measured beside the loss."""
    is_objective: bool = False
    """Whether `best` is the best by the metric."""
    best: dict[str, Any] | None = None
    """number, eval_loss, params, values as in `RunningTrial`, and metric if there is one. Once it was run
    again, eval_loss is the mean over that many `seeds`."""
    confirm_runs: int = 0
    """Finished runs of the confirmation, beside the sweep's own trials."""
    default_loss: float | None = None
    """Loss of the guideline default, once it has used its full budget."""
    base_eval_loss: float | None = None
    base_unquantized_loss: float | None = None
    """Loss of the base without quantization, where it was measured."""
    base_metric: float | None = None
    """Metric of the untouched base."""
    widened: list[str] = field(default_factory=list)
    """Sentences on the ends of ranges that the sweep moved by itself."""
    compute_paths: list[dict[str, Any]] = field(default_factory=list)
    """How its workers computed: device, path, details and notes; more than one where trials mix rounding."""
    devices: list[str] = field(default_factory=list)
    """For people: `NVIDIA H200`, `2 x NVIDIA H200`, `2 CPU cores`."""
    num_put_back: int = 0
    """Trials that ran out of memory in a pack and were put back to be tried again."""
    seat_busy_share: float | None = None
    """Share of the seats' time in which they held a trial and the pack computed, while there were trials to
    hand out. Of the latest run; known once a trial has ended."""
    tokens_per_second: float = 0.0
    """Of all trials together, over the last seconds."""
    steps_per_second: float = 0.0
    """Optimizer steps of all trials together, over the last seconds."""
    elapsed_seconds: float = 0.0
    """Since the command began, with its start; 0 where nothing is running."""
    run_seconds: float | None = None
    """Time in which the sweep ran, over all of its runs; None in studies that do not hold it."""
    seconds_left: float | None = None
    """Never grows unless `left_note` says why; None until a few steps were measured."""
    left_note: str = ""
    """Why `seconds_left` last grew, such as `worker 1 was lost`."""
    storage_away_seconds: float = 0.0
    """How long the storage has been unavailable; 0 while it answers."""
    is_live: bool = False
    """Whether a process works on the study now."""
    ended_at: datetime | None = None
    """UTC: the last sign of life of the last process that worked on the study; None while one does."""
    next_command: str | None = None
    """What continues the sweep; None when nothing is left to do or it is running."""
    ending: bool = False
    """Whether the keeper hands out no more trials: none is left, it was stopped or failed, or time is up."""
    stopping: bool = False
    """Whether it was asked to stop: its trials write checkpoints and end."""
    stop_seconds: float | None = None
    """About how long a stop would take from now; None: not known."""
    steps_at_risk: int | None = None
    """The most steps that one running trial would lose if everything ended at once; None: not known."""
    events: list[str] = field(default_factory=list)
    """One line per change since the keeper's process started, oldest first."""
    life: str = ""
    """Random name of that process; when it changes, `events` starts over."""

    def _shown(self) -> tuple[str, Mapping[str, str]]:
        now = "is running" if self.is_live else "is done"
        if not self.is_live and self.has_work:
            now = "was interrupted" if self.ended_at is not None else "is not running"
        outcomes = ", ".join(f"{count} {name.replace('_', ' ')}" for name, count in self.outcomes.items())
        facts = {"trials": f"{self.finished} of {self.target} finished{f' ({outcomes})' if outcomes else ''}"}
        if self.unfinished:
            facts["unfinished"] = str(self.unfinished)
        if self.frozen:
            facts["frozen"] = str(self.frozen)
        if self.next_command is not None:
            facts["to go on"] = self.next_command
        if self.best is not None:
            seeds = f" ({plural(self.best['seeds'], 'seed')})" if self.best.get("seeds") else ""
            facts["best"] = f"trial {self.best['number']}, loss {self.best['eval_loss']:.3f}{seeds}"
        if self.confirm_runs:
            facts["confirmation"] = f"{plural(self.confirm_runs, 'run')} on new seeds"
        return f"Status of {self.name!r}: it {now}", facts

    @property
    def finished(self) -> int:
        """Trials that ended and did not fail, and those that were frozen when the sweep ended."""
        ended = sum(self.states.get(state.name, 0) for state in COUNTED_STATES)
        return ended + self.states.get(AT_REST, 0)

    @property
    def failed(self) -> int:
        """Trials that failed. A configuration that is tried again is another trial."""
        return self.states.get(TrialState.FAIL.name, 0)

    @property
    def unfinished(self) -> int:
        """Trials that have started and not ended."""
        return self.states.get(TrialState.RUNNING.name, 0) + self.states.get(PAUSED, 0)

    @property
    def frozen(self) -> int:
        """Trials that were stopped early and may be taken up again before the sweep ends."""
        return self.states.get(FROZEN, 0)

    @property
    def has_work(self) -> bool:
        """Whether trials are missing or have not ended."""
        return self.finished < self.target or self.unfinished > 0 or self.frozen > 0


def as_plain(status: Status) -> dict[str, Any]:
    """A status as JSON-ready builtins."""
    ended_at = None if status.ended_at is None else status.ended_at.isoformat(timespec="seconds")
    values: dict[str, Any] = plain(asdict(status) | {"ended_at": ended_at})
    return values | {"finished": status.finished, "failed": status.failed}


def from_plain(values: Mapping[str, Any]) -> Status:
    """Read what `as_plain` wrote. Raises ValueError for anything else, also for a value of another type."""
    from pydantic import TypeAdapter  # only here: a study is read without it

    return TypeAdapter(Status).validate_python(
        {name: value for name, value in values.items() if name not in ("finished", "failed")}
    )
