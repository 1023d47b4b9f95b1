"""What a worker may compute by on its machine, decided by a certificate before the base is loaded."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch

from lora_runner.certificate.cache import certificate_for
from lora_runner.certificate.certificate import KINDS, Certificate
from lora_runner.certificate.checks.check_ways import check_way
from lora_runner.certificate.cublas_settings import CUBLAS_SETTINGS, VARIABLES
from lora_runner.certificate.device_facts import DeviceFacts
from lora_runner.certificate.model_sizes import ModelSizes
from lora_runner.certificate.ways.products import checked_rows
from lora_runner.certificate.ways.registry import FUSED, LIGER, WAYS, WHOLE_TILES, has_fused_kernels
from lora_runner.errors import first_line, is_device_error
from lora_runner.kernels.frozen_product import Kernel, ProductSize
from lora_runner.kernels.frozen_product import Way as ProductWay

FUSED_KINDS = ("adapters", "attention", "norms", "rotary", "activations")
"""Kinds that the fused path computes by its own kernels; for products it has a choice."""

KERNELS: Mapping[str, Kernel] = {FUSED: "triton", WHOLE_TILES: "triton whole tiles"}
"""Ways of products that are kernels of this program -> the product that computes so."""


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
    kernel: Kernel | None = None
    """The invariant kernel that takes what `product` has not been checked for; None: no kernel does."""
    library_rows: Mapping[ProductSize, int] = field(default_factory=dict)
    """By product that cuBLAS takes, the rows of the highest pass in which it was found invariant."""
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
    ranked = certificate.invariant_ways("products")
    kernel = next((KERNELS[way] for way in ranked if way in KERNELS), None)
    for way in ranked:
        if way in KERNELS:
            product, name = KERNELS[way], way
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
    # cuBLAS is checked for some sizes only: other siblings of a model need a kernel.
    kinds = ("products", *FUSED_KINDS) if kernel is None else FUSED_KINDS
    failed = [text for kind in kinds if (text := certificate.failure(kind, FUSED)) is not None]
    refusal = failed[0] if failed else None
    if refusal is not None:
        notes.append(f"the fused path is not taken: {refusal}")
    return Decision(
        certificate=certificate,
        refusal=refusal,
        product=product,
        product_name=name,
        kernel=kernel,
        library_rows=_checked_rows(certificate, name) if product == "cublas" else {},
        liger_refusal=next(iter(_liger_failures(certificate)), None),
        notes=tuple(notes),
    )


def _checked_rows(certificate: Certificate, way: str) -> Mapping[ProductSize, int]:
    checks = [check for check in certificate.checks if (check.kind, check.way) == ("products", way)]
    return checked_rows(certificate.sizes, checks)


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

    On CUDA where there are fused kernels for `dtype`, by the certificate in the cache or a new one; elsewhere
    nothing is checked and nothing changes. A certificate that cannot be made means the general path.
    `facts` and `obtain` are those of the device and of the cache.
    """
    device = torch.device("cuda", torch.cuda.current_device()) if torch.cuda.is_available() else _CPU
    facts = facts or DeviceFacts.of(device)
    if not has_fused_kernels(facts, dtype):
        return Decision()
    try:
        certificate = obtain(device, sizes, dtype, alive=alive)
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
    wrong = next((check for check in checks if check.not_computed is None and not check.is_invariant), None)
    if device.type == "cuda":
        torch.cuda.empty_cache()  # the base is loaded next
    return None if wrong is None else f"{wrong.case}: {wrong.difference}"
