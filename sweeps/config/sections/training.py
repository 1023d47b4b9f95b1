"""`training` and `lora`: the budget, the batch, the optimizer's constants and the adapter of every trial."""

from __future__ import annotations

import itertools
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, ValidationInfo, model_validator

from sweeps.config.field_types import (
    NUMBER,
    Flag,
    NonNegativeFloat,
    Percent,
    PositiveFloat,
    PositiveInt,
    Seed,
    Share,
    Text,
    mapping_of,
)
from sweeps.config.sections.base import Section
from sweeps.config.validation import refusal

DEFAULT_EVALUATIONS = 5


def _falls(cycles: float) -> float:
    if cycles % 1 != 0.5 and cycles >= 0.5:
        rule = "must be 0.5 or less, which only falls, or 1.5, 2.5 ..., waves that end low"
        raise ValueError(f"{rule}; got {cycles:g}")
    return cycles


def _ends_low(cycles: float) -> float:
    if cycles % 1 != 0.5:
        raise ValueError(
            f"must be 0.5, which only falls, or 1.5, 2.5 ..., waves that end low; got {cycles:g}"
        )
    return cycles


def _one_minimum(options: dict[str, Any]) -> dict[str, Any]:
    # Nothing given: lora_runner.optim.schedules knows the usual choice.
    if options and ("min_lr" in options) == ("min_lr_rate" in options):
        raise ValueError(f"needs exactly one of min_lr and min_lr_rate; got {', '.join(options)}")
    return options


def _decay_fits(options: dict[str, Any]) -> dict[str, Any]:
    if options and "num_decay_steps" not in options:
        raise ValueError(f"needs num_decay_steps beside its other arguments; got {', '.join(options)}")
    decay_type = options.get("decay_type", "cosine")
    if "num_cycles" in options and decay_type != "cosine":
        message = f"has no effect beside decay_type {decay_type}; got {options['num_cycles']:g}"
        raise refusal([(("num_cycles",), message)])
    return options


_Waves = Annotated[PositiveFloat, AfterValidator(_falls)]
_Shape = Literal["linear", "cosine", "1-sqrt"]

# What transformers' schedule functions take, for every schedule of files_and_text.choices.SCHEDULERS.
SCHEDULER_OPTIONS: dict[str, dict[str, Any]] = {
    "constant": {},
    "constant_with_warmup": {},
    "linear": {},
    "cosine": {"num_cycles": _Waves},
    "cosine_with_min_lr": {"num_cycles": _Waves, "min_lr": NonNegativeFloat, "min_lr_rate": Share},
    "warmup_stable_decay": {
        "num_cycles": Annotated[PositiveFloat, AfterValidator(_ends_low)],
        "num_decay_steps": PositiveInt,
        "warmup_type": _Shape,
        "decay_type": _Shape,
        "min_lr_ratio": Share,
    },
    "inverse_sqrt": {"timescale": PositiveInt},
}
_RULES = {
    "cosine_with_min_lr": AfterValidator(_one_minimum),
    "warmup_stable_decay": AfterValidator(_decay_fits),
}
_SCHEDULERS = {
    name: Annotated[
        dict[str, Any], BeforeValidator(mapping_of(f"the scheduler {name}", options, _RULES.get(name)))
    ]
    for name, options in SCHEDULER_OPTIONS.items()
}


def _rising_percents(fractions: tuple[float, ...]) -> tuple[float, ...]:
    percents = [100 * fraction for fraction in fractions]
    # The study keeps reports by whole percent, so that rungs never depend on how a float was rounded.
    whole = all(percent >= 1 and abs(percent - round(percent)) < 1e-6 for percent in percents)
    rising = all(before < after for before, after in itertools.pairwise(percents))
    if not fractions or not whole or not rising or fractions[-1] != 1.0:
        rule = "must be rising fractions of the budget, in whole percents, ending with 1.0"
        raise ValueError(f"{rule}; got {list(fractions)}")
    return fractions


# Rules between two keys. Fields are validated in order, and `info.data` has the earlier ones that are right:
# a rule is silent when the other key is wrong by itself.
def _one_budget(epochs: float | None, info: ValidationInfo) -> float | None:
    max_steps = info.data.get("max_steps", ...)
    if epochs is None and max_steps is None:
        raise ValueError("or max_steps must be given; got neither")
    if epochs is not None and isinstance(max_steps, int):
        both = f"{epochs:g} epochs and max_steps {max_steps}"
        raise ValueError(f"cannot be given with max_steps, keep one; got {both}")
    return epochs


def _fit_the_budget(evaluations: int, info: ValidationInfo) -> int:
    # The default count is not held against a short run: there, evaluations coincide.
    max_steps = info.data.get("max_steps")
    if max_steps is not None and evaluations > max_steps:
        raise ValueError(f"must be at most max_steps, {max_steps}; got {evaluations}")
    return evaluations


def _without_evaluations(fractions: tuple[float, ...], info: ValidationInfo) -> tuple[float, ...]:
    if info.data.get("evaluations") is not None:
        raise ValueError(f"cannot be given with evaluations, keep one; got {list(fractions)}")
    return fractions


class TrainingSection(Section):
    """One trial's budget and the constants of its optimizer."""

    max_steps: PositiveInt | None = None
    """Optimizer steps of a full trial; this or num_train_epochs."""
    num_train_epochs: Annotated[
        PositiveFloat | None, AfterValidator(_one_budget), Field(validate_default=True)
    ] = None
    """Passes over the training examples of a full trial; this or max_steps."""
    per_device_train_batch_size: PositiveInt = 8
    """Examples of one micro-batch of one trial."""
    gradient_accumulation_steps: PositiveInt = 1
    """Micro-batches of one optimizer step."""
    per_device_eval_batch_size: PositiveInt = 8
    """Examples of one evaluation batch; changes speed and memory, never the loss."""
    evaluations: Annotated[Percent, AfterValidator(_fit_the_budget)] | None = None
    """Equally spaced evaluations of a full trial, at which it may be pruned; null: 5, or report_at."""
    report_at: (
        Annotated[
            tuple[Annotated[float, Field(gt=0, le=1), NUMBER], ...],
            Field(title="fractions of the budget"),
            AfterValidator(_rising_percents),
            AfterValidator(_without_evaluations),
        ]
        | None
    ) = None
    """The evaluations as rising fractions of the budget, ending with 1.0; replaces `evaluations`."""
    weight_decay: NonNegativeFloat = 0.0
    """AdamW's decoupled weight decay, per step and unit of the learning rate."""
    max_grad_norm: NonNegativeFloat = 1.0
    """A longer gradient of a trial is scaled down to this norm; 0: never."""
    adam_beta1: Share = 0.9
    """AdamW's decay of the first moment (mean of the gradient), per step."""
    adam_beta2: Share = 0.999
    """AdamW's decay of the second moment (mean of its square), per step."""
    adam_epsilon: PositiveFloat = 1e-8
    """AdamW's term that keeps the update finite where gradients vanish."""
    embedding_optimizer_bits: Annotated[Literal[32, 8], NUMBER] = 32
    """8: the moments of trained embeddings in bitsandbytes' 8 bits, 10 bytes per parameter instead of 16."""
    lr_scheduler_kwargs: Annotated[
        dict[str, dict[str, Any]], BeforeValidator(mapping_of("the schedulers", _SCHEDULERS))
    ] = Field(default_factory=dict)
    """Arguments per scheduler, by transformers' names: {cosine_with_min_lr: {min_lr_rate: 0.1}}."""
    gradient_checkpointing: Flag = False
    """Recompute activations in the backward pass: less memory, about a third more time."""
    graphs: Flag = True
    """Launch each pass on a GPU as one CUDA graph where fused kernels are used: the same numbers in less
    time, but a pass's memory stays reserved."""
    seed: Seed = 0
    """Seed of the adapter's initial weights, the order of examples and dropout; the same for every trial."""

    @property
    def report_percents(self) -> tuple[int, ...]:
        """The evaluations of a full trial, in percent of its budget: rising, the last is 100."""
        if self.report_at is not None:
            return tuple(round(100 * fraction) for fraction in self.report_at)
        count = self.evaluations or DEFAULT_EVALUATIONS
        return tuple(round(100 * index / count) for index in range(1, count + 1))


class LoraSection(Section):
    """The adapter, where the search does not vary it.

    A key with `lora_` before it, as the space and the trials have it (lora_alpha), is read too.
    """

    r: PositiveInt = 16
    """Rank of the adapter's matrices."""
    alpha: PositiveInt = 16
    """The adapter's output is scaled by alpha / r, or alpha / sqrt(r) with use_rslora."""
    dropout: Share = 0.0
    """Share of the adapter's input set to zero in training."""
    target_modules: (
        Literal["all-linear"]
        | Annotated[tuple[Text, ...], Field(title="module names, such as [q_proj, v_proj]", min_length=1)]
    ) = "all-linear"
    """all-linear (every linear layer but the output layer), or a list of module names."""
    use_rslora: Flag = False
    """Rank-stabilized LoRA: scale by alpha / sqrt(r) instead of alpha / r."""

    @model_validator(mode="before")
    @classmethod
    def _without_prefix(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        prefixed = {f"lora_{name}": name for name in ("r", "alpha", "dropout")}
        twice = [
            ((key,), f"is given twice, as {key} and as {name}; keep one")
            for key, name in prefixed.items()
            if key in data and name in data
        ]
        if twice:
            raise refusal(twice)
        return {prefixed.get(key, key): value for key, value in data.items()}

    @property
    def trial_values(self) -> dict[str, Any]:
        """The section in the words of a trial: r is lora_r there."""
        values = {f"lora_{name}": getattr(self, name) for name in ("r", "alpha", "dropout")}
        return values | {"use_rslora": self.use_rslora}
