"""What a worker may compute by on its machine, decided by a certificate before the base is loaded."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass

import torch

from lora_runner.certificate.cache import certificate_for
from lora_runner.certificate.certificate import KINDS, Certificate
from lora_runner.certificate.checks.check_ways import check_way
from lora_runner.certificate.cublas_settings import CUBLAS_SETTINGS, VARIABLES
from lora_runner.certificate.device_facts import DeviceFacts
from lora_runner.certificate.model_sizes import ModelSizes
from lora_runner.certificate.ways.registry import FUSED, FUSED_CAPABILITY, LIGER, WAYS, WHOLE_TILES
from lora_runner.errors import first_line, is_device_error
from lora_runner.kernels.frozen_product import Way as ProductWay

FUSED_KINDS = ("adapters", "attention", "norms", "rotary", "activations")
"""Kinds that the fused path computes by its own kernels; for products it has a choice."""


@dataclass(frozen=True, kw_only=True)
class Decision:
    """What a certificate allows; without one, everything stays as it is by default."""

    certificate: Certificate | None = None
    refusal: str | None = None
    """Why the fused path must not be taken, in words; None: it may."""
    product: ProductWay | None = None
    """The product over all rows that is used for frozen weights; None: none is."""
    product_name: str = ""
    """Its way in the certificate, which names cuBLAS's setting too."""
    liger_refusal: str | None = None
    """Why the general path must not use Liger's kernels, in words; None: it may."""
    notes: tuple[str, ...] = ()
    """For the run: what was not taken although it was to be, and why."""


def decide(certificate: Certificate, confirm: Callable[[str], str | None]) -> Decision:
    """The fused path if its kernels are invariant, and the fastest invariant product over all rows.

    `confirm` sets up this process for one of cuBLAS's ways, checks it here too, and says what is wrong.
    """
    notes = [
        f"no way to compute {KINDS[choice.kind]} is invariant on this machine ({choice.reason}): a trial's "
        "numbers may depend on its neighbours"
        for choice in certificate.choices
        if choice.way is None
    ]
    product: ProductWay | None = None
    name = ""
    may_confirm = True
    for way in certificate.invariant_ways("products"):
        if way == FUSED:
            product, name = "triton", way
        elif way == WHOLE_TILES:
            product, name = "triton whole tiles", way
        elif way in CUBLAS_SETTINGS and may_confirm:
            # cuBLAS reads its settings once, so a second one could not be tried.
            may_confirm = False
            if (wrong := confirm(way)) is not None:
                notes.append(f"frozen products by {way} are not taken: {wrong}")
                continue
            product, name = "cublas", way
        else:
            continue
        break
    failed = [text for kind in FUSED_KINDS if (text := certificate.failure(kind, FUSED)) is not None]
    if product is None:
        failed.insert(0, "no product over all rows is invariant on this machine")
    refusal = failed[0] if failed else None
    if refusal is not None:
        notes.append(f"the fused path is not taken: {refusal}")
    return Decision(
        certificate=certificate,
        refusal=refusal,
        product=product,
        product_name=name,
        liger_refusal=next(iter(_liger_failures(certificate)), None),
        notes=tuple(notes),
    )


def _liger_failures(certificate: Certificate) -> list[str]:
    """What is wrong with Liger's kernels, where they are installed and were checked."""
    kinds = [check.kind for check in certificate.checks if check.way == LIGER]
    return [text for kind in kinds if (text := certificate.failure(kind, LIGER)) is not None]


def decide_here(
    sizes: ModelSizes,
    dtype: torch.dtype,
    *,
    alive: Callable[[], None] = lambda: None,
    facts: DeviceFacts | None = None,
    obtain: Callable[..., Certificate] = certificate_for,
) -> Decision:
    """The decision for this process's device, before it multiplies anything.

    On CUDA from capability 9 on, in bfloat16, by the certificate in the cache or a new one; elsewhere nothing
    is checked and nothing changes. A certificate that cannot be made means the general path. `facts` and
    `obtain` are those of the device and of the cache.
    """
    device = torch.device("cuda", torch.cuda.current_device()) if torch.cuda.is_available() else _CPU
    facts = facts or DeviceFacts.of(device)
    if facts.capability is None or facts.capability[0] < FUSED_CAPABILITY or dtype != torch.bfloat16:
        return Decision()
    try:
        certificate = obtain(device, sizes, alive=alive)
        return decide(certificate, lambda way: set_up_cublas(way, device, dtype, certificate, alive))
    except Exception as error:
        if is_device_error(error):
            raise
        refusal = f"no certificate could be made: {type(error).__name__}: {first_line(error)}"
        return Decision(refusal=refusal, notes=(f"the fused path is not taken: {refusal}",))


_CPU = torch.device("cpu")


def set_up_cublas(
    name: str, device: torch.device, dtype: torch.dtype, certificate: Certificate, alive: Callable[[], None]
) -> str | None:
    """Set cuBLAS's variables in this process and check its products here; what is wrong, or None.

    The variables have an effect only if nothing in this process has used cuBLAS yet: so it is checked.
    """
    for variable in VARIABLES:
        os.environ.pop(variable, None)
    os.environ.update(CUBLAS_SETTINGS[name])
    way = next(way for way in WAYS if (way.kind, way.name) == ("products", name))
    checks = check_way(way, device, dtype, certificate.sizes, certificate.seed, alive)
    wrong = next((check for check in checks if not check.is_invariant), None)
    if device.type == "cuda":
        torch.cuda.empty_cache()  # the base is loaded next
    return None if wrong is None else f"{wrong.case}: {wrong.difference}"
