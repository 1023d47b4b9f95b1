"""How long a sweep would take: its floating-point operations over the speed of this machine's device."""

from __future__ import annotations

from dataclasses import dataclass

from files_and_text.numbers import duration
from sweeps.plan.blueprint import Blueprint

FORWARD_BACKWARD_FLOPS = 4.0
"""Per parameter and token of a QLoRA step: forward 2, backward 2 (frozen weights need no gradient)."""
FORWARD_FLOPS = 2.0
ASSUMED_UTILISATION = 0.35
"""Share of the device's matrix speed that a step is assumed to reach; `plan` states it."""


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


def time_estimate(blueprint: Blueprint, matrix_flops: float) -> TimeEstimate:
    """From the tokens of all trials, the parameters, and the device's operations per second."""
    study_spec = blueprint.study_spec
    constants = study_spec.constants
    examples = (
        constants["max_steps"]
        * constants["per_device_train_batch_size"]
        * constants["gradient_accumulation_steps"]
    )
    mean = blueprint.data.train.num_tokens / len(blueprint.data.train)
    size = float(study_spec.context["model_size"])
    train = study_spec.trials * examples * mean * FORWARD_BACKWARD_FLOPS * size
    # An evaluation runs whole examples, of which only some tokens are predicted.
    evaluated = study_spec.trials * len(study_spec.report_at) * blueprint.data.eval.num_tokens
    speed = matrix_flops * ASSUMED_UTILISATION
    return TimeEstimate(train / speed, evaluated * FORWARD_FLOPS * size / speed)


def time_lines(blueprint: Blueprint, matrix_flops: float | None) -> list[str]:
    """How long it takes, and what that rests on; `matrix_flops` is None for a GPU that is not here."""
    if matrix_flops is None:
        return [f"unknown until it runs on {blueprint.device.name}; this machine has none"]
    found = time_estimate(blueprint, matrix_flops)
    extra = "starting up" + ("" if blueprint.study_spec.metric is None else " and measuring the metric")
    lines = [
        f"about {duration(found.seconds)} on one worker if nothing is pruned, plus {extra}",
        f"(estimate: {matrix_flops / 1e12:.2g} TFLOP/s measured here, {ASSUMED_UTILISATION:.0%} of it used)",
    ]
    if found.evaluation_share >= 0.2:
        lines.append(
            f"{found.evaluation_share:.0%} of it is evaluation; fewer data.max_eval_examples or "
            "training.evaluations shorten it"
        )
    return lines


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
