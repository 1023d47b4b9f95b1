"""What every trial of a sweep shares: the budget, the batch, the optimizer's constants, the adapter."""

from __future__ import annotations

import itertools
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from sweeps.config.fields import (
    Check,
    check_flag,
    check_list_of,
    check_mapping,
    check_one_of,
    check_real,
    check_text,
    check_whole,
    shown,
    wrong,
)
from sweeps.config.sections.base import Section

DEFAULT_EVALUATIONS = 5


def _waves(*, may_end_high: bool) -> Check:
    """A number of cosine waves that ends low; `may_end_high` also lets through a part of the first fall."""
    number = check_real(above=0)

    def check(value: Any) -> float:
        waves: float = number(value)
        if waves % 1 != 0.5 and not (may_end_high and waves < 0.5):
            below = " or less," if may_end_high else ","
            rule = f"must be 0.5{below} which only falls, or 1.5, 2.5 ..., waves that end low"
            raise wrong(f"{rule}; got {shown(value)}")
        return waves

    return check


_COSINE: dict[str, Check] = {"num_cycles": _waves(may_end_high=True)}
_SHARE = check_real(0, below=1)
_SHAPES = check_one_of(("linear", "cosine", "1-sqrt"))

# What transformers' schedule functions take, for every one of SCHEDULERS.
SCHEDULER_OPTIONS: dict[str, dict[str, Check]] = {
    "constant": {},
    "constant_with_warmup": {},
    "linear": {},
    "cosine": _COSINE,
    "cosine_with_min_lr": {**_COSINE, "min_lr": check_real(0), "min_lr_rate": _SHARE},
    "warmup_stable_decay": {
        "num_cycles": _waves(may_end_high=False),
        "num_decay_steps": check_whole(1),
        "warmup_type": _SHAPES,
        "decay_type": _SHAPES,
        "min_lr_ratio": _SHARE,
    },
    "inverse_sqrt": {"timescale": check_whole(1)},
}
_SCHEDULERS: dict[str, Check] = {
    name: check_mapping(options, what=f"the scheduler {name}") for name, options in SCHEDULER_OPTIONS.items()
}


def _report_at(value: Any) -> tuple[float, ...] | None:
    if value is None:
        return None
    check = check_list_of(check_real(above=0, high=1), what="fractions of the budget")
    fractions: tuple[float, ...] = check(value)
    percents = [100 * fraction for fraction in fractions]
    # The study keeps reports by whole percent, so that rungs never depend on how a float was rounded.
    whole = all(percent >= 1 and abs(percent - round(percent)) < 1e-6 for percent in percents)
    rising = all(before < after for before, after in itertools.pairwise(percents))
    if not fractions or not whole or not rising or fractions[-1] != 1.0:
        rule = "must be rising fractions of the budget, in whole percents, ending with 1.0"
        raise wrong(f"{rule}; got {list(fractions)}")
    return fractions


def _bits(value: Any) -> int:
    if value in (8, 32) and not isinstance(value, bool):
        return int(value)
    raise wrong(f"must be 32 or 8; got {shown(value)}")


class TrainingSection(Section):
    """`training`: one trial's budget and the constants of its optimizer."""

    max_steps: Annotated[int | None, BeforeValidator(check_whole(1, none=True))] = None
    """Optimizer steps of a full trial; this or num_train_epochs."""
    num_train_epochs: Annotated[float | None, BeforeValidator(check_real(above=0, none=True))] = None
    """Passes over the training examples of a full trial; this or max_steps."""
    per_device_train_batch_size: Annotated[int, BeforeValidator(check_whole(1))] = 8
    """Examples of one micro-batch of one trial."""
    gradient_accumulation_steps: Annotated[int, BeforeValidator(check_whole(1))] = 1
    """Micro-batches of one optimizer step."""
    per_device_eval_batch_size: Annotated[int, BeforeValidator(check_whole(1))] = 8
    """Examples of one evaluation batch; changes speed and memory, never the loss."""
    evaluations: Annotated[int | None, BeforeValidator(check_whole(1, 100, none=True))] = None
    """Equally spaced evaluations of a full trial, where it may be pruned; null: 5, or report_at."""
    report_at: Annotated[tuple[float, ...] | None, BeforeValidator(_report_at)] = None
    """The evaluations as rising fractions of the budget, ending with 1.0, instead of `evaluations`."""
    weight_decay: Annotated[float, BeforeValidator(check_real(0))] = 0.0
    max_grad_norm: Annotated[float, BeforeValidator(check_real(0))] = 1.0
    """A trial's gradient is scaled down to this norm when it is longer; 0: never."""
    adam_beta1: Annotated[float, BeforeValidator(check_real(0, below=1))] = 0.9
    adam_beta2: Annotated[float, BeforeValidator(check_real(0, below=1))] = 0.999
    adam_epsilon: Annotated[float, BeforeValidator(check_real(above=0))] = 1e-8
    embedding_optimizer_bits: Annotated[Literal[32, 8], BeforeValidator(_bits)] = 32
    """8: the moments of trained embeddings in bitsandbytes' 8 bits, 10 bytes a parameter instead of 16."""
    lr_scheduler_kwargs: Annotated[
        dict[str, dict[str, Any]], BeforeValidator(check_mapping(_SCHEDULERS, what="the schedulers"))
    ] = Field(default_factory=dict)
    """Arguments per scheduler, by transformers' names: {cosine_with_min_lr: {min_lr_rate: 0.1}}."""
    gradient_checkpointing: Annotated[bool, BeforeValidator(check_flag())] = False
    """Recompute activations in the backward pass: less memory, about a third more time."""
    seed: Annotated[int, BeforeValidator(check_whole(0, 2**32 - 1))] = 0
    """Of the adapter's initial weights, the order of examples and dropout; the same for every trial."""

    @model_validator(mode="after")
    def _one_budget(self) -> Self:
        keys = ("max_steps", "num_train_epochs")
        if self.max_steps is None and self.num_train_epochs is None:
            raise wrong("needs max_steps or num_train_epochs; got neither", involves=keys)
        if self.max_steps is not None and self.num_train_epochs is not None:
            both = f"{self.num_train_epochs:g} epochs beside max_steps {self.max_steps}"
            raise wrong(
                f"cannot stand beside max_steps, keep one; got {both}", "num_train_epochs", involves=keys
            )
        return self

    @model_validator(mode="after")
    def _one_plan_of_evaluations(self) -> Self:
        if self.evaluations is not None and self.report_at is not None:
            said = f"cannot stand beside evaluations, keep one; got {list(self.report_at)}"
            raise wrong(said, "report_at", involves=("evaluations", "report_at"))
        # The default count is not held against a short run: there, evaluations fall together.
        if self.max_steps is not None and (self.evaluations or 0) > self.max_steps:
            said = f"must be at most max_steps, {self.max_steps}; got {self.evaluations}"
            raise wrong(said, "evaluations", involves=("max_steps",))
        return self

    @model_validator(mode="after")
    def _scheduler_kwargs_agree(self) -> Self:
        given = self.lr_scheduler_kwargs.get("cosine_with_min_lr", {})
        # Nothing given: lora_runner.optim.schedules knows the usual choice.
        if given and ("min_lr" in given) == ("min_lr_rate" in given):
            said = f"needs exactly one of min_lr and min_lr_rate; got {', '.join(given)}"
            raise wrong(said, "lr_scheduler_kwargs", "cosine_with_min_lr")
        decay = self.lr_scheduler_kwargs.get("warmup_stable_decay", {})
        if decay and "num_decay_steps" not in decay:
            said = f"needs num_decay_steps beside its other arguments; got {', '.join(decay)}"
            raise wrong(said, "lr_scheduler_kwargs", "warmup_stable_decay")
        if "num_cycles" in decay and decay.get("decay_type", "cosine") != "cosine":
            said = f"has no effect beside decay_type {decay['decay_type']}; got {decay['num_cycles']:g}"
            raise wrong(said, "lr_scheduler_kwargs", "warmup_stable_decay", "num_cycles")
        return self

    @property
    def report_percents(self) -> tuple[int, ...]:
        """The evaluations of a full trial, in percent of its budget: rising, the last is 100."""
        if self.report_at is not None:
            return tuple(round(100 * fraction) for fraction in self.report_at)
        count = self.evaluations or DEFAULT_EVALUATIONS
        return tuple(round(100 * index / count) for index in range(1, count + 1))


def _target_modules(value: Any) -> str | tuple[str, ...]:
    if value == "all-linear":
        return "all-linear"
    if isinstance(value, list | tuple) and value:
        names: tuple[str, ...] = check_list_of(check_text(), what="module names")(value)
        return names
    raise wrong(f"must be all-linear or a list of module names, such as [q_proj, v_proj]; got {shown(value)}")


class LoraSection(Section):
    """`lora`: the adapter, where the search does not vary it."""

    r: Annotated[int, BeforeValidator(check_whole(1))] = 16
    """Rank."""
    alpha: Annotated[int, BeforeValidator(check_whole(1))] = 16
    """The adapter's output is scaled by alpha / r (alpha / sqrt(r) with use_rslora)."""
    dropout: Annotated[float, BeforeValidator(check_real(0, below=1))] = 0.0
    """Share of the adapter's input set to zero in training."""
    target_modules: Annotated[str | tuple[str, ...], BeforeValidator(_target_modules)] = "all-linear"
    """all-linear (every linear layer but the output layer), or a list of module names."""
    use_rslora: Annotated[bool, BeforeValidator(check_flag())] = False
