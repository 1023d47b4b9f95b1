"""What `sweeps init` sets, from what it found, each with its reason in words for the file's comments."""

from __future__ import annotations

import math
from dataclasses import dataclass

from files_and_text.numbers import plural
from lora_runner.errors import DataError
from search_spaces import Guidelines
from sweeps.init.defaults import USUAL_STEPS, scenario_steps
from sweeps.init.facts import DataFacts, ModelFacts

COVERED = 0.99
"""Share of the sequences that keep their end."""
MICRO_BATCH_TOKENS = 16_384
"""Tokens of one trial's micro-batch, beyond which it is split and its gradients are accumulated."""
EFFECTIVE_BATCH = 8
FEW_STEPS, MOST_STEPS = 30, 1000


@dataclass(frozen=True, kw_only=True)
class Chosen:
    """A value and why."""

    value: int | float
    reason: str


def max_length(data: DataFacts, model: ModelFacts) -> Chosen:
    """Tokens that cover 99% of the sequences, or all if that is little more, within the model's positions."""
    lengths = data.lengths
    most, longest = lengths[math.ceil(COVERED * len(lengths)) - 1], lengths[-1]
    wanted = longest if longest <= 1.25 * most else most
    value = 32 * math.ceil(wanted / 32)
    if model.max_positions is not None:
        value = min(value, model.max_positions)
    cut = sum(length > value for length in lengths)
    if value == model.max_positions and 2 * cut > len(lengths):
        raise DataError(
            f"the model has {value:,} positions, and {cut:,} of {len(lengths):,} examples are longer (the "
            f"longest has {longest:,} tokens); shorten or split the records, or take another base"
        )
    measured = f"{len(lengths):,} {'measured ' if data.is_sample else ''}examples"
    reason = (
        f"Here the median is {lengths[len(lengths) // 2]:,}, 99% have at most {most:,}, "
        f"the longest {longest:,}. "
        + (
            f"{value:,} cuts {cut:,} of {measured} ({cut / len(lengths):.1%})"
            if cut
            else f"{value:,} cuts none of {measured}"
        )
    )
    if value == model.max_positions:
        reason += f"; the model has {value:,} positions"
    return Chosen(value=value, reason=f"{reason}.")


def batch(data: DataFacts, length: int) -> tuple[Chosen, Chosen]:
    """Examples of a micro-batch, and micro-batches of a step."""
    wanted = EFFECTIVE_BATCH
    while wanted > 1 and wanted * 5 > data.num_train:
        wanted //= 2
    size = wanted
    while size > 1 and size * length > MICRO_BATCH_TOKENS:
        size //= 2
    few = f"for {plural(data.num_train, 'example')}" if wanted < EFFECTIVE_BATCH else ""
    split = (
        f"{size} at a time, since {wanted} of {length:,} tokens would take much memory"
        if size < wanted
        else ""
    )
    reason = "; ".join(part for part in (few, split) if part)
    steps = (
        f"A step sees {plural(wanted, 'example')}{f' {reason}' if few else f'; {reason}' if split else ''}."
    )
    return Chosen(value=size, reason=steps), Chosen(value=wanted // size, reason="")


def max_steps(data: DataFacts, batch_size: int, tables: Guidelines, scenario: str) -> Chosen:
    """Optimizer steps: up to three passes over few examples, a part of one over many."""
    one_pass = math.ceil(data.num_train / batch_size)
    wanted = min(max(USUAL_STEPS, one_pass), 3 * one_pass, MOST_STEPS)
    wanted = max(wanted, FEW_STEPS)
    low, high = scenario_steps(tables, scenario)
    steps = max(wanted, low or wanted)
    steps = steps if high is None else min(steps, high)
    passes = steps * batch_size / data.num_train
    reason = (
        f"{steps:,} steps of {plural(batch_size, 'example')} are {_passes(passes)} over {data.num_train:,}"
    )
    if steps != wanted:
        reason += f"; scenario {scenario} is about runs of {_range(low, high)} steps"
    elif passes < 1:
        reason += ", enough to rank learning rates"
    return Chosen(value=steps, reason=f"{reason}.")


def _passes(passes: float) -> str:
    if passes < 0.995:
        return f"{passes:.0%} of a pass"
    return "1 pass" if round(passes, 1) == 1 else f"{passes:.1f} passes"


def _range(low: int | None, high: int | None) -> str:
    if low is None:
        return f"up to {high:,}"
    return f"{low:,} and more" if high is None else f"{low:,} to {high:,}"
