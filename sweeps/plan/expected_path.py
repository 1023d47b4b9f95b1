"""By which path a model's passes would be computed, said before any GPU computes."""

from __future__ import annotations

import torch

from lora_runner.base.load_model import BaseSpec
from lora_runner.certificate.cache import cached_certificate
from lora_runner.certificate.certificate import Certificate
from lora_runner.certificate.decision import decide
from lora_runner.certificate.device_facts import DeviceFacts
from lora_runner.certificate.model_sizes import ModelSizes
from lora_runner.fused.compute_path import LEAST_CAPABILITY, Machine

UNLESS = "unless the certificate that a worker makes at its start says otherwise"
IF_ALL = "if every part of the model has a fused form"


def expected_path(base: BaseSpec, sizes: ModelSizes, device: torch.device, dtype: torch.dtype) -> str:
    """The path that a worker would take, and why; `device` and `dtype` are those of the machine that plans.

    A machine that has a certificate for these layers is told what it says.
    """
    elsewhere = f"fused from compute capability {LEAST_CAPABILITY} on, {IF_ALL}, {UNLESS}"
    if device.type != "cuda":
        return f"general on this machine, whose device is {device.type}; on a GPU {elsewhere}"
    if base.device_map is not None:
        return "general if the base is spread over several GPUs (model.device_map), else " + elsewhere
    machine = Machine.of(device, dtype)
    if not machine.has_fused_kernels:
        return f"general: {machine.reason}"
    certificate = cached_certificate(DeviceFacts.of(device), sizes)
    if certificate is None:
        return f"fused, {IF_ALL}, {UNLESS}; `sweeps certify` makes it now"
    return f"{_by(certificate)} (the certificate of {certificate.made_at} for this machine)"


def _by(certificate: Certificate) -> str:
    decision = decide(certificate, confirm=lambda _: None)
    if decision.refusal is not None:
        return f"general: {decision.refusal}"
    return f"fused, {IF_ALL}, frozen products by {decision.product_name}"
