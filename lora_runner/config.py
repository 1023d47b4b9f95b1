"""The hyperparameters of one trial, named as in transformers and peft."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, field, fields
from typing import Any

from files_and_text.choices import SCHEDULERS
from files_and_text.value_checker import Limits
from lora_runner.errors import TrialConfigError


def default_scheduler_kwargs(lr_scheduler_type: str, max_steps: int) -> dict[str, Any]:
    """Arguments of a schedule function where transformers demands a choice and none was made.

    `cosine_with_min_lr` ends at a tenth of the peak; `warmup_stable_decay` decays over the last tenth of the
    run.
    """
    defaults: dict[str, dict[str, Any]] = {
        "cosine_with_min_lr": {"min_lr_rate": 0.1},
        "warmup_stable_decay": {"num_decay_steps": math.ceil(0.1 * max_steps)},
    }
    return defaults.get(lr_scheduler_type, {})


@dataclass(frozen=True, kw_only=True)
class TrialConfig:
    """The hyperparameters that can differ between trials of a pack."""

    learning_rate: float
    """Peak learning rate of the LoRA matrices."""
    embedding_learning_rate: float | None = None
    """Peak learning rate of trained embeddings and lm_head; None when they are frozen."""
    lr_scheduler_type: str = "linear"
    lr_scheduler_kwargs: dict[str, Any] = field(default_factory=dict)
    """Arguments of transformers' schedule function; empty means the defaults in `schedules.py`."""
    warmup_steps: int = 0
    """Optimizer steps; ignored by `constant`, as in transformers."""
    max_steps: int
    """Optimizer steps of the full budget, also the horizon of the schedule."""
    per_device_train_batch_size: int = 8
    """Sequences in a micro-batch of this trial."""
    gradient_accumulation_steps: int = 1
    """Micro-batches per optimizer step."""
    weight_decay: float = 0.0
    """Decoupled decay of all trained weights."""
    max_grad_norm: float = 1.0
    """Clipping threshold of the trial's gradient norm; 0: no clipping."""
    adam_beta1: float = 0.9
    adam_beta2: float = 0.999
    adam_epsilon: float = 1e-8
    lora_r: int = 16
    lora_alpha: float = 16
    lora_dropout: float = 0.0
    use_rslora: bool = False
    """Scale by alpha / sqrt(r) rather than alpha / r."""
    seed: int = 0
    """Seeds the LoRA init, the data order and the dropout masks."""

    def __post_init__(self) -> None:
        problems = self._wrong_types() or self._broken_rules()
        if problems:
            raise TrialConfigError("; ".join(problems))

    def _wrong_types(self) -> list[str]:
        """Fields of the wrong type; values come from JSON and from a sampler."""
        problems = []
        for name in _WHOLE:
            if not isinstance(value := getattr(self, name), int) or isinstance(value, bool):
                problems.append(f"{name} must be a whole number, got {value!r}")
        for name in _REAL:
            value = getattr(self, name)
            if name == "embedding_learning_rate" and value is None:
                continue
            if not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value):
                problems.append(f"{name} must be a finite number, got {value!r}")
        if not isinstance(self.lr_scheduler_kwargs, Mapping):
            problems.append(f"lr_scheduler_kwargs must be a mapping, got {self.lr_scheduler_kwargs!r}")
        return problems

    def _broken_rules(self) -> list[str]:
        values = vars(self)
        broken = [
            f"{name} {rule}, got {values[name]}"
            for name, limits in _LIMITS.items()
            if values[name] is not None and (rule := limits.broken_by(values[name]))
        ]
        broken += [
            f"{name} must lie in [0, 1), got {values[name]}"
            for name in ("lora_dropout", "adam_beta1", "adam_beta2")
            if not 0 <= values[name] < 1
        ]
        if self.lr_scheduler_type not in SCHEDULERS:
            known = ", ".join(SCHEDULERS)
            broken.append(f"lr_scheduler_type must be one of {known}, got {self.lr_scheduler_type!r}")
        if not 0 <= self.warmup_steps <= self.max_steps:
            rule = f"warmup_steps must lie in 0..max_steps={self.max_steps}"
            broken.append(f"{rule}, got {self.warmup_steps}")
        return broken

    @property
    def lora_scaling(self) -> float:
        """Factor on B·A·x: alpha / r, or alpha / sqrt(r) with rsLoRA (peft's conventions)."""
        return self.lora_alpha / (self.lora_r**0.5 if self.use_rslora else self.lora_r)

    def to_dict(self) -> dict[str, Any]:
        """Plain builtins, the inverse of `from_dict`."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> TrialConfig:
        """Read what `to_dict` wrote; an unknown or missing field is a TrialConfigError."""
        known = {f.name for f in fields(cls)}
        unknown = sorted(set(values) - known)
        if unknown:
            raise TrialConfigError(
                f"unknown trial fields {', '.join(unknown)}; known: {', '.join(sorted(known))}"
            )
        needed = {f.name for f in fields(cls) if f.default is MISSING and f.default_factory is MISSING}
        if missing := sorted(needed - set(values)):
            raise TrialConfigError(f"missing trial fields {', '.join(missing)}")
        return cls(**values)

    def hash(self) -> str:
        """Hex digest of the canonical JSON: equal configs, equal hash, on every machine."""
        canonical = json.dumps(_canonical(self.to_dict()), sort_keys=True)
        return hashlib.sha256(canonical.encode()).hexdigest()[:16]


_WHOLE = tuple(f.name for f in fields(TrialConfig) if f.type == "int")
_REAL = tuple(f.name for f in fields(TrialConfig) if f.type in ("float", "float | None"))
_LIMITS = {
    **dict.fromkeys(("learning_rate", "lora_alpha"), Limits(above=0)),
    **dict.fromkeys(("max_steps", "lora_r"), Limits(at_least=1)),
    **dict.fromkeys(("per_device_train_batch_size", "gradient_accumulation_steps"), Limits(at_least=1)),
    **dict.fromkeys(("embedding_learning_rate", "weight_decay"), Limits(at_least=0)),
    **dict.fromkeys(("max_grad_norm", "adam_epsilon"), Limits(at_least=0)),
}


def _canonical(value: Any) -> Any:
    """Equal JSON for equal values: 16 and 16.0 are one configuration."""
    if isinstance(value, Mapping):
        return {key: _canonical(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_canonical(entry) for entry in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value
