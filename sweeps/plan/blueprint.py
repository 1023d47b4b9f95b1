"""A sweep that is ready to start: the specs to send, and the estimates that `sweeps plan` shows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from files_and_text.numbers import value_text
from files_and_text.shown import Shown
from sweeps.config import SweepConfig
from sweeps.plan.frozen_disk import frozen_disk
from sweeps.plan.specs import StudySpec, WorkerSpec
from sweeps.plan.trial_kinds import first_trials, trial_counts

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from lora_runner.data import DataBundle
    from lora_runner.memory.planned_device import PlannedDevice

CACHE = (
    "keys and values are cached while answers are generated, unless the cache changes the model's logits: "
    "then each token costs a pass over its whole text, and the worker logs why"
)
NO_ANSWERS = "likelihoods are compared, nothing is generated"


@dataclass(frozen=True, kw_only=True, repr=False)
class Blueprint(Shown):
    """Everything that is decided before a sweep starts."""

    config: SweepConfig
    study_spec: StudySpec
    worker_spec: WorkerSpec
    tokenizer: PreTrainedTokenizerBase
    """The base's own; the trials may be given another chat template."""
    memory_gib: float
    """Estimated peak of a full pack."""
    memory_available_gib: float
    memory_reason: str
    """Why this number of seats, and whether the dequantized base stays in memory."""
    device: PlannedDevice
    """What the estimates are for."""
    compute_path: list[str]
    """By which path the passes are expected to be computed, and why."""
    base_gib: float
    """The base alone, at its smallest: if this does not fit, no batch size does."""
    base_kind: str
    """How its linear layers are stored, in words after "parameters"."""
    base_unquantized: str
    """Which of its parameters stay in the compute dtype, in words."""

    def _shown(self) -> tuple[str, Mapping[str, str]]:
        spec, seats = self.study_spec, self.worker_spec.seats
        searched = [
            f"{item.name} {value_text(item.low)} to {value_text(item.high)}"
            if item.low is not None and item.high is not None
            else f"{item.name} {', '.join(map(str, item.choices or ()))}"
            for item in spec.space.dimensions
        ]
        facts = {
            "trials": f"{spec.trials} of {spec.context['max_steps']:,} steps, {seats} side by side",
            "data": f"{len(self.data.train)} examples to train on, {len(self.data.eval)} to evaluate on",
            "searched": "; ".join(searched),
            "memory": f"{self.memory_gib:.1f} of {self.memory_available_gib:.1f} GiB",
        }
        return f"Plan of {spec.name!r}", facts

    @property
    def data(self) -> DataBundle:
        """The tokenized sets, with the counts of their records, warnings and notices."""
        return self.worker_spec.data

    @property
    def num_workers(self) -> int:
        """Workers on the planned GPUs; on a cluster there may be others."""
        if self.config.workers != "auto":
            return self.config.workers
        return max(1, self.device.count // self.config.gpus_per_worker)

    @property
    def fits(self) -> bool:
        """Whether the estimated peak is within the memory that is there."""
        return self.memory_gib <= self.memory_available_gib

    def summary(self) -> dict[str, Any]:
        """Plain values, for `sweeps plan --json`."""
        first, disk = first_trials(self.study_spec), frozen_disk(self.study_spec)
        return {
            "name": self.study_spec.name,
            "context": self.study_spec.context,
            "data": self.study_spec.context["data_account"],
            # Those that run, not all candidates.
            "space": replace(self.study_spec.space, first_trials=tuple(first)).to_dict(),
            "first_trials": [asdict(trial) for trial in first],
            "trials": self.study_spec.trials,
            "trial_kinds": trial_counts(self.study_spec),
            "stopped_early_at": list(self.study_spec.pruning_percents),
            "metric": metric_summary(self.study_spec),
            "seats": self.worker_spec.seats,
            "workers": self.num_workers,
            "device": {"name": self.device.name, "is_here": self.device.is_here},
            "fits": self.fits,
            "memory_gib": self.memory_gib,
            "memory_available_gib": self.memory_available_gib,
            "memory_reason": self.memory_reason,
            "disk": None if disk is None else disk.summary(),
            "compute_path": self.compute_path,
        }


def metric_summary(study_spec: StudySpec) -> dict[str, Any] | None:
    """The sweep's metric as plain values; None for a sweep without one."""
    metric, report_at = study_spec.metric, study_spec.report_at
    if metric is None:
        return None
    return {
        "name": metric.name,
        "direction": metric.direction,
        "objective": metric.objective,
        "num_prompts": study_spec.context["metric"]["num_prompts"],
        "max_new_tokens": metric.max_new_tokens,
        "measured_at": [percent for percent in report_at if metric.is_measured(percent, report_at)],
        "cache": CACHE if metric.max_new_tokens else NO_ANSWERS,
    }
