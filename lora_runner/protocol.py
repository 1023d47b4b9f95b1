"""What a session receives and reports: plain values, without torch."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from itertools import pairwise
from typing import Any

from lora_runner.config import TrialConfig
from lora_runner.metric.scores import MetricSpec
from lora_runner.stability import Sign

COMPLETE, PRUNED, DIVERGED = "complete", "pruned", "diverged"
OUT_OF_MEMORY, FAILED = "out_of_memory", "failed"
"""The outcomes of a trial."""
PUT_BACK = "put_back"
"""Not an end: memory ran out beside its neighbours, and the trial may be tried once more beside fewer."""


@dataclass(frozen=True, kw_only=True)
class Assignment:
    """A trial for a free seat."""

    number: int
    config: TrialConfig
    folder: str
    """The trial's folder; checkpoint and adapter are written below it."""
    attempt: int = 1
    put_back: int = 0
    """How often it has left its seat because memory ran out; the second time ends it."""


@dataclass(frozen=True, kw_only=True)
class SessionOptions:
    """Settings for all trials of a session."""

    report_at: tuple[int, ...]
    """Percents of the budget at which a trial is evaluated and reported; the last is 100."""
    per_device_eval_batch_size: int = 16
    checkpoint_seconds: float = 60.0
    """A running trial is checkpointed after the first report this long after the last checkpoint."""
    disk_patience_seconds: float = 900.0
    """How long a finished trial waits for a full or unreachable disk before its worker gives up."""
    sample_tokens: int = 24
    """Length of the sampled continuations that are checked for repetition."""
    metric: MetricSpec | None = None
    """Measured beside the loss."""

    def __post_init__(self) -> None:
        rising = all(a < b for a, b in pairwise(self.report_at))
        if not (self.report_at and rising and self.report_at[0] >= 1 and self.report_at[-1] == 100):
            raise ValueError(f"report_at must rise within 1..100 and end with 100, got {self.report_at}")


@dataclass(frozen=True, kw_only=True)
class RecordLosses:
    """A trial's loss on each evaluation record, in the order of the evaluation set."""

    nats: tuple[float, ...]
    """Summed over the record's target tokens."""
    tokens: tuple[int, ...]
    """How many those are."""


@dataclass(frozen=True, kw_only=True)
class SeatReport:
    """One trial's results at a percent of its budget; `outcome` is set when it has left its seat."""

    number: int
    attempt: int
    percent: int
    step: int
    eval_loss: float | None
    train_loss: float
    grad_norm: float
    learning_rate: float
    num_tokens: int
    tokens_per_second: float
    wall_seconds: float
    peak_memory_gib: float
    signs: tuple[Sign, ...] = ()
    outcome: str | None = None
    stop_reason: str | None = None
    generations: tuple[str, ...] = ()
    error: str | None = None
    """The traceback of a trial that failed."""
    metric: float | None = None
    """Value of the session's metric, where this report measured it."""
    adapter_sha256: str | None = None
    """Digest of the trained weights (`adapter_digest.py`); None without an evaluation loss."""
    device: str | None = None
    """What computed: a GPU's name, or the instruction set of a CPU."""
    num_threads: int | None = None
    """Threads of torch on a CPU, on which sums may depend; None on a GPU."""
    compute_path: str | None = None
    """The path of the pack's passes, `fused` or `general`, and how its parts were computed."""
    record_losses: RecordLosses | None = None
    """Of a trial that used its full budget; kept in a file of its own."""

    def to_dict(self) -> dict[str, Any]:
        """Plain builtins, as written to the trial's reports.jsonl; without the losses of single records."""
        values = asdict(replace(self, record_losses=None))
        del values["record_losses"]
        return values | {"signs": list(values["signs"]), "generations": list(self.generations)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> SeatReport:
        """Read what `to_dict` wrote."""
        signs = tuple(Sign(**sign) for sign in values["signs"])
        return cls(**{**values, "signs": signs, "generations": tuple(values["generations"])})

    @classmethod
    def empty(cls, assignment: Assignment) -> SeatReport:
        """The report of a trial that did not reach its first step."""
        return cls(
            number=assignment.number,
            attempt=assignment.attempt,
            percent=0,
            step=0,
            eval_loss=None,
            train_loss=math.nan,
            grad_norm=math.nan,
            learning_rate=0.0,
            num_tokens=0,
            tokens_per_second=0.0,
            wall_seconds=0.0,
            peak_memory_gib=0.0,
        )

    @property
    def is_end(self) -> bool:
        """Whether the trial will not be trained any further."""
        return self.outcome not in (None, PUT_BACK)

    def ended(self, outcome: str, reason: str, error: str | None = None) -> SeatReport:
        """This report as the trial's last one on this seat; `error` is the traceback of a failure."""
        return replace(self, outcome=outcome, stop_reason=reason, error=error)


@dataclass(frozen=True, kw_only=True)
class BaseSamples:
    """What the untouched base wrote for the prompts that every trial continues at its end."""

    prompts: tuple[str, ...]
    answers: tuple[str, ...]
    """What follows each prompt in its evaluation example."""
    generations: tuple[str, ...]
    """Greedy continuations, no longer than those of the trials."""

    def to_dict(self) -> dict[str, list[str]]:
        """Plain builtins, for the study."""
        return {name: list(texts) for name, texts in asdict(self).items()}


@dataclass(frozen=True, kw_only=True)
class UnquantizedBase:
    """The untouched base without quantization."""

    loss: float | None = None
    """Its evaluation loss, nats per token; None where it was not measured."""
    reason: str = ""
    """Why not, as the end of a sentence."""


@dataclass(frozen=True, kw_only=True)
class TrialProgress:
    """How far a trial on a seat is, between two reports."""

    number: int
    attempt: int
    step: int
    """Optimizer steps done."""
    max_steps: int
    num_tokens: int
    """Real training tokens so far."""
    train_loss: float | None = None
    """Of the newest step whose loss has been read from the device."""
    checkpoint_step: int = 0
    """Steps that its checkpoint holds."""


@dataclass(frozen=True, kw_only=True)
class ComputeRecord:
    """How a session computes, for the study."""

    device: str
    """A GPU's name, or the instruction set of a CPU."""
    path: str
    """Equal for sessions whose rounding is the same on one device."""
    details: tuple[str, ...]
    """Why this path, and how it computes each part, as lines."""
    notes: tuple[str, ...] = ()
    """What was not taken although it was to be, and why."""
    devices: Mapping[str, int] = field(default_factory=dict)
    """For people: a GPU's name -> how many of them the session uses; `CPU core` -> cores."""
    host: str = ""
    """Of the machine: cores of one machine are shared by its workers."""
    certificate_name: str | None = None
    """File name of the certificate; None where none was needed."""
    certificate: Mapping[str, Any] | None = None
    """Its contents, as `Certificate.to_dict` writes them."""
