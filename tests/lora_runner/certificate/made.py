"""Sizes that a CPU checks in a moment, and certificates for tests that check nothing."""

from __future__ import annotations

from dataclasses import replace

import torch

from lora_runner.certificate.certificate import KINDS, Certificate, Check, choose
from lora_runner.certificate.certify import code_digest
from lora_runner.certificate.device_facts import DeviceFacts
from lora_runner.certificate.model_sizes import ModelSizes

TINY = ModelSizes.of_llama(
    "a tiny Llama", hidden=32, intermediate=64, heads=4, key_value_heads=2, vocabulary=64
)
CPU = torch.device("cpu")


def check(kind: str, way: str, difference: str | None = None, milliseconds: float = 1.0) -> Check:
    """A check that was done, or that found a difference."""
    return Check(
        kind=kind,
        way=way,
        case="forward 8 to 8",
        comparisons=3,
        difference=difference,
        error=1e-7,
        milliseconds=None if difference else milliseconds,
        speed=None if difference else 2.5,
        unit="TFLOP/s",
    )


def certificate(*checks: Check, device: DeviceFacts | None = None) -> Certificate:
    """A certificate of these checks, by default one good way of each kind."""
    checks = checks or tuple(check(kind, "triton") for kind in KINDS)
    return Certificate(
        device=device or DeviceFacts.of(CPU),
        sizes=TINY,
        dtype="bfloat16" if device is not None and device.type == "cuda" else "float32",
        code=code_digest(),
        made_at="2026-11-28T19:00:00+00:00",
        seconds=1.5,
        seed=7,
        checks=checks,
        choices=choose(checks),
    )


def hopper() -> DeviceFacts:
    """A GPU with capability 9, on a machine without one."""
    return replace(
        DeviceFacts.of(CPU),
        type="cuda",
        name="NVIDIA H200",
        capability=(9, 0),
        driver="580.95.05",
        shared_bytes=232448,
        threads=0,
    )
