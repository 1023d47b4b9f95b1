"""How long a sweep would take: its floating-point operations over the speed of this machine's device."""

from __future__ import annotations

from files_and_text.numbers import duration
from sweeps.plan.blueprint import Blueprint

FORWARD_BACKWARD_FLOPS = 4.0
"""Per parameter and token of a QLoRA step: forward 2, backward 2 (frozen weights need no gradient)."""
ASSUMED_UTILISATION = 0.35
"""Share of the device's matrix speed that a step is assumed to reach; `plan` states it."""


def time_estimate(blueprint: Blueprint, matrix_flops: float) -> str:
    """An upper estimate in words: one worker, and every trial uses its full budget."""
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
    num_evaluated = study_spec.trials * len(study_spec.report_at) * blueprint.data.eval.num_target_tokens
    evaluate = num_evaluated * 2 * 2 * size
    seconds = (train + evaluate) / (matrix_flops * ASSUMED_UTILISATION)
    extra = "starting up" + ("" if study_spec.metric is None else " and measuring the metric")
    return (
        f"about {duration(seconds)} on one worker if nothing is pruned, plus {extra} (estimate: "
        f"{matrix_flops / 1e12:.2g} TFLOP/s measured here, {ASSUMED_UTILISATION:.0%} of it used)"
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
