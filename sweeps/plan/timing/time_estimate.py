"""How long a sweep would take: from measured steps or runs, or its operations and the device's speed."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from files_and_text.numbers import duration, plural
from sweeps.plan.blueprint import Blueprint
from sweeps.plan.timing.measured_steps import MeasuredSteps

FORWARD_BACKWARD_FLOPS = 4.0
"""Per parameter and token of a QLoRA step: forward 2, backward 2 (frozen weights need no gradient)."""
FORWARD_FLOPS = 2.0
ASSUMED_UTILISATION = {"cuda": 0.35, "cpu": 0.8}
"""Share of the device's matrix speed that a step is assumed to reach; `plan` states it. On a CPU a sweep of
SmolLM2-135M took 2.4 times less than at 0.35."""
BUSY = 0.75
"""Load average per core from which a machine counts as busy."""


@dataclass(frozen=True)
class TimeEstimate:
    """An upper estimate: one worker, and every trial uses its full budget."""

    training_seconds: float
    evaluation_seconds: float

    @property
    def seconds(self) -> float:
        return self.training_seconds + self.evaluation_seconds

    @property
    def evaluation_share(self) -> float:
        return self.evaluation_seconds / self.seconds if self.seconds else 0.0


def utilisation(blueprint: Blueprint) -> float:
    """The share of the matrix speed that a step is assumed to reach on the planned device."""
    return ASSUMED_UTILISATION[blueprint.device.kind]


def time_estimate(blueprint: Blueprint, matrix_flops: float) -> TimeEstimate:
    """From the tokens of all trials, the parameters, and the device's operations per second."""
    trained, evaluated = num_tokens(blueprint)
    per_second = matrix_flops * utilisation(blueprint) / float(blueprint.study_spec.context["model_size"])
    return TimeEstimate(trained * FORWARD_BACKWARD_FLOPS / per_second, evaluated * FORWARD_FLOPS / per_second)


def time_from_steps(blueprint: Blueprint, steps: MeasuredSteps) -> TimeEstimate:
    """From the tokens of all trials, and the tokens per second of a full pack."""
    trained, evaluated = num_tokens(blueprint)
    return TimeEstimate(trained / steps.train_speed, evaluated / steps.eval_speed)


def num_tokens(blueprint: Blueprint) -> tuple[float, float]:
    """Tokens of all trials in training and in evaluation, if nothing is pruned.

    An evaluation runs whole examples, of which only some tokens are predicted.
    """
    study_spec, data = blueprint.study_spec, blueprint.data
    constants = study_spec.constants
    examples = (
        constants["max_steps"]
        * constants["per_device_train_batch_size"]
        * constants["gradient_accumulation_steps"]
    )
    mean = data.train.num_tokens / len(data.train)
    evaluations = len(study_spec.report_at)
    return study_spec.trials * examples * mean, study_spec.trials * evaluations * data.eval.num_tokens


@dataclass(frozen=True)
class MeasuredRun:
    """How long the sweep's earlier runs took, over everything that they did."""

    seconds: float
    full_trials: float
    """Shares of the budget that its trials have used, added up."""

    @property
    def trial_seconds(self) -> float:
        """Seconds of the whole sweep for each full trial, with evaluations and several trials at a time."""
        return self.seconds / self.full_trials


def measured_run(url: Callable[[], str], name: str) -> MeasuredRun | None:
    """What the study says of its earlier runs; None without one, or before a full trial's worth has run."""
    from sweeps.errors import SweepError
    from sweeps.study.read_status import RUN_SECONDS, used_shares
    from sweeps.study.study import peek

    try:
        study = peek(url(), name)
    except SweepError:
        return None
    if study is None:
        return None
    seconds, full = float(study.user_attrs.get(RUN_SECONDS) or 0.0), sum(used_shares(study))
    return MeasuredRun(seconds, full) if seconds > 0 and full >= 1 else None


def time_summary(
    blueprint: Blueprint,
    matrix_flops: float | None,
    measured: MeasuredRun | None = None,
    steps: MeasuredSteps | None = None,
) -> dict[str, Any] | None:
    """Plain values for `sweeps plan --json`; None where nothing is known of the device's speed."""
    if matrix_flops is None:
        return None
    found = time_estimate(blueprint, matrix_flops)
    seconds, basis = found.seconds, "estimate"
    if steps is not None:
        found = time_from_steps(blueprint, steps)
        seconds, basis = found.seconds, "steps measured now"
    elif measured is not None:
        seconds = measured.trial_seconds * blueprint.study_spec.trials
        basis = "earlier runs of this sweep"
    return {
        "seconds": seconds,
        "basis": basis,
        "evaluation_share": found.evaluation_share,
        "load_average": load_average(),
    }


def time_lines(
    blueprint: Blueprint,
    matrix_flops: float | None,
    measured: MeasuredRun | None = None,
    steps: MeasuredSteps | None = None,
) -> list[str]:
    """How long it takes, and what that rests on: `steps`, else `measured`, else `matrix_flops`.

    None of them is known for a GPU that is not here.
    """
    if matrix_flops is None:
        return [f"unknown until it runs on {blueprint.device.name}; this machine has none"]
    metric = "" if blueprint.study_spec.metric is None else " and measuring the metric"
    if steps is not None:
        found = time_from_steps(blueprint, steps)
        whole, start = duration(found.seconds), duration(steps.start_seconds)
        lines = [
            f"about {whole} on one worker if nothing is pruned, plus {start} to start{metric}",
            f"(measured now: {steps.train_speed:,.0f} tokens/s in training, {steps.eval_speed:,.0f} in "
            f"evaluation, with {plural(steps.seats, 'trial')} at a time; {_share(found)})",
        ]
    elif measured is not None:
        found = time_estimate(blueprint, matrix_flops)
        whole = duration(measured.trial_seconds * blueprint.study_spec.trials)
        ran = f"{measured.full_trials:.1f} full trials in {duration(measured.seconds)}"
        lines = [
            f"about {whole} if nothing is pruned, {_share(found)}",
            f"(measured: this sweep ran {ran})",
        ]
    else:
        found = time_estimate(blueprint, matrix_flops)
        speed, used = f"{matrix_flops / 1e12:.2g} TFLOP/s", f"{utilisation(blueprint):.0%}"
        lines = [
            f"about {duration(found.seconds)} on one worker if nothing is pruned, plus starting up{metric}",
            f"(estimate: {speed} measured here, {used} of it used; {_share(found)})",
        ]
    if found.evaluation_share >= 0.2:
        lines.append("fewer data.max_eval_examples or training.evaluations shorten the evaluation")
    return lines


def _share(found: TimeEstimate) -> str:
    return f"{found.evaluation_share:.0%} of it evaluation"


def load_average() -> float | None:
    """Of the last minute; None where the system does not say."""
    try:
        return os.getloadavg()[0]
    except (AttributeError, OSError):
        return None


def busy_warning(load: float | None, cores: int) -> str | None:
    """That other programs use this machine, so that what is measured now is too slow."""
    if load is None or load < BUSY * cores:
        return None
    return (
        f"the machine is busy (load average {load:.1f} on {plural(cores, 'core')}): speeds measured now are "
        "too low"
    )


def measure_matrix_flops() -> float:
    """Operations per second of a large matrix product on this machine's device, measured within a second."""
    import time

    import torch

    cuda = torch.cuda.is_available()
    n, dtype = (8192, torch.bfloat16) if cuda else (1024, torch.float32)
    a = torch.randn(n, n, device="cuda" if cuda else "cpu", dtype=dtype)
    best = float("inf")
    for _ in range(4):
        if cuda:
            torch.cuda.synchronize()
        started = time.perf_counter()
        a @ a
        if cuda:
            torch.cuda.synchronize()
        best = min(best, time.perf_counter() - started)
    return 2.0 * n**3 / best
