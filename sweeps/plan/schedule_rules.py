"""Finds schedules that contradict a learning rate, batch size or warmup that may be drawn with them.

One schedule factor applies to LoRA matrices and trained embeddings. So an absolute minimum (`min_lr`) is that
of the LoRA matrices, as in transformers, and embeddings end at the same share of their own peak.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from files_and_text.numbers import plural
from files_and_text.yaml_lines import KeyPath
from lora_runner.config import TrialConfig
from search_spaces import Dimension, SearchSpace
from sweeps.plan.trial_config import trial_config

_KWARGS: KeyPath = ("training", "lr_scheduler_kwargs")


def schedule_findings(
    space: SearchSpace, constants: Mapping[str, Any], scheduler_kwargs: Mapping[str, Mapping[str, Any]]
) -> Iterator[tuple[KeyPath, str]]:
    """The key and what is wrong, for every scheduler that fails for some trial of the space.

    Arguments as in `trial_config`. Checked are the trials for which each rule is hardest to keep: the lowest
    learning rate, the longest warmup, every batch size.
    """
    for scheduler in _values(space["lr_scheduler_type"]):
        yield from _minimum_findings(space, str(scheduler), scheduler_kwargs)
        if scheduler == "warmup_stable_decay":
            params = _hardest(space, scheduler)
            sizes = _values(space[_BATCH]) if _BATCH in space else (constants[_BATCH],)
            trials = (trial_config({**params, _BATCH: size}, constants, scheduler_kwargs) for size in sizes)
            yield from _decay_findings(space, list(trials), chosen=bool(scheduler_kwargs.get(scheduler)))


_BATCH = "per_device_train_batch_size"


def _hardest(space: SearchSpace, scheduler: float | int | str) -> dict[str, Any]:
    params: dict[str, Any] = {
        "learning_rate": min(space["learning_rate"].ends()),
        "lr_scheduler_type": scheduler,
    }
    if "warmup_ratio" in space and space["warmup_ratio"].is_active(params):
        params["warmup_ratio"] = max(space["warmup_ratio"].ends())
    return params


def _minimum_findings(
    space: SearchSpace, scheduler: str, scheduler_kwargs: Mapping[str, Mapping[str, Any]]
) -> Iterator[tuple[KeyPath, str]]:
    minimum = scheduler_kwargs.get(scheduler, {}).get("min_lr")
    lowest = min(space["learning_rate"].ends())
    if minimum is not None and minimum >= lowest:
        yield (
            (*_KWARGS, scheduler, "min_lr"),
            f"training.lr_scheduler_kwargs.{scheduler}.min_lr must be below every learning rate that may be "
            f"drawn; got {minimum:g}, and space.learning_rate begins at {lowest:g}, whose trial would end "
            "above its peak. min_lr_rate is a share of each trial's own peak, such as {min_lr_rate: 0.1}",
        )


def _decay_findings(
    space: SearchSpace, trials: Sequence[TrialConfig], *, chosen: bool
) -> Iterator[tuple[KeyPath, str]]:
    """`chosen`: the user has set the length of the decay, so that is what has to change."""
    too_long = [t for t in trials if t.warmup_steps + t.lr_scheduler_kwargs["num_decay_steps"] > t.max_steps]
    if not too_long:
        return
    shortest = min(too_long, key=lambda trial: trial.max_steps)
    decay = shortest.lr_scheduler_kwargs["num_decay_steps"]
    steps = plural(shortest.max_steps, "step")
    searched = f" with {_BATCH} {getattr(shortest, _BATCH)}" if _BATCH in space else ""
    longest = (
        f"space.warmup_ratio up to {max(space['warmup_ratio'].ends()):g}" if "warmup_ratio" in space else ""
    )
    has = f"a trial{searched} has {steps}, {shortest.warmup_steps} of them warmup ({longest})"
    if chosen:
        key = "num_decay_steps"
        yield (
            (*_KWARGS, "warmup_stable_decay", key),
            f"training.lr_scheduler_kwargs.warmup_stable_decay.{key} must fit beside the warmup into every "
            f"trial that may be drawn; got {decay}, and {has}",
        )
    else:
        yield (
            ("space", "warmup_ratio"),
            f"space.warmup_ratio must leave room for the decay of warmup_stable_decay, a tenth of a trial; "
            f"got {decay} for {has}",
        )


def _values(dimension: Dimension) -> tuple[float | int | str, ...]:
    """All values of a discrete dimension."""
    if dimension.choices is not None:
        return dimension.choices
    low, high = dimension.bounds()
    return tuple(range(int(low), int(high) + 1, int(dimension.step or 1)))
