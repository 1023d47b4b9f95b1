"""By which path a benchmark's pack computes: as in a sweep on this machine, or as asked."""

from __future__ import annotations

from functools import cache

import torch

from benchmarks.training_steps.random_llama import Shape
from lora_runner.certificate.cache import cached_certificate
from lora_runner.certificate.decision import Decision, decide_here
from lora_runner.certificate.device_facts import DeviceFacts
from lora_runner.certificate.model_sizes import ModelSizes
from lora_runner.fused.compute_path import Machine


def sizes_of(shape: Shape) -> ModelSizes:
    """The sizes for which a certificate is made."""
    return ModelSizes.of_llama(
        shape.name,
        hidden=shape.hidden,
        intermediate=shape.intermediate,
        heads=shape.heads,
        key_value_heads=shape.key_value_heads,
        vocabulary=shape.vocabulary,
    )


@cache
def certified_decision(shape: Shape, device: torch.device, dtype: torch.dtype) -> Decision | None:
    """What this machine's certificate allows for a shape; None where none is in the cache.

    To be called before anything here multiplies: a certificate may choose a setting of cuBLAS, which a
    process reads once.
    """
    if device.type != "cuda" or cached_certificate(DeviceFacts.of(device), sizes_of(shape), dtype) is None:
        return None
    return decide_here(sizes_of(shape), dtype)


def certified_machine(shape: Shape, device: torch.device, dtype: torch.dtype) -> Machine:
    """The path that a sweep takes here."""
    return Machine.of(device, dtype, certified_decision(shape, device, dtype))


GENERAL = Machine(False, "the benchmark asked for the general path")
