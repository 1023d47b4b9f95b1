"""By which path a model's passes would be computed, said before any GPU computes."""

from __future__ import annotations

import torch

from lora_runner.base.load_model import BaseSpec
from lora_runner.certificate.cache import cached_certificate
from lora_runner.certificate.certificate import Certificate
from lora_runner.certificate.decision import decide
from lora_runner.certificate.device_facts import DeviceFacts
from lora_runner.certificate.model_sizes import ModelSizes
from lora_runner.certificate.ways.registry import FUSED_CAPABILITY, FUSED_SHARED_BYTES
from lora_runner.fused.compute_path import ComputePath
from lora_runner.memory.planned_device import PlannedDevice

UNLESS = "unless the certificate that a worker makes at its start says otherwise"
FUSED_PATH = "fused"
COUNTED = (
    "(parts of the one or two layers of each kind that the memory estimate runs without numbers; a worker "
    "checks those of all layers by their numbers)"
)
IF_ALL = "if every part of the model has a fused form"


def expected_path(
    base: BaseSpec, sizes: ModelSizes, on: PlannedDevice, dtype: torch.dtype, found: ComputePath | None
) -> list[str]:
    """The path that a worker would take, and why, then a line for each part of the model.

    `on` and `dtype` are those that are planned for; `found` is the path of the pack whose memory was
    counted on it, None if that failed. A machine that has a certificate for these layers is told what it
    says.
    """
    first = _first_line(base, sizes, on, dtype, found)
    if found is None or not found.is_fused or not first.startswith(FUSED_PATH):
        return [first]
    return [first, *(f"{part}: {how}" for part, how in found.parts.items()), COUNTED]


def _first_line(
    base: BaseSpec, sizes: ModelSizes, on: PlannedDevice, dtype: torch.dtype, found: ComputePath | None
) -> str:
    needs = (
        f"compute capability {FUSED_CAPABILITY} on, with {FUSED_SHARED_BYTES // 1024} KiB of shared memory"
    )
    elsewhere = f"fused from {needs} a block, {IF_ALL}, {UNLESS}"
    if on.kind != "cuda":
        return f"general on this machine, whose device is {on.kind}; on a GPU {elsewhere}"
    if base.device_map is not None:
        return "general if the base is spread over several GPUs (model.device_map), else " + elsewhere
    machine = on.machine(dtype)
    if not machine.has_fused_kernels:
        return f"general: {machine.reason}"
    if found is not None and not found.is_fused:
        return f"general: {found.reason}"
    fused = f"{FUSED_PATH}, {IF_ALL}" if found is None else FUSED_PATH
    if not on.is_here:
        return f"{fused}, {UNLESS}"
    certificate = cached_certificate(DeviceFacts.of(on.torch_device), sizes, dtype)
    if certificate is None:
        return f"{fused}, {UNLESS}; `sweeps certify` makes it now"
    return f"{_by(certificate, fused)} (the certificate of {certificate.made_at} for this machine)"


def _by(certificate: Certificate, fused: str) -> str:
    decision = decide(certificate, confirm=lambda _: None)
    if decision.refusal is not None:
        return f"general: {decision.refusal}"
    return f"{fused}, frozen products by {decision.product_name}"
