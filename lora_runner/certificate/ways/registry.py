"""All ways to compute each kind, and where they can be tried."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec

import torch

from lora_runner.certificate.cublas_settings import CUBLAS_SETTINGS
from lora_runner.certificate.device_facts import DeviceFacts
from lora_runner.certificate.ways import adapters, attention, output, products, row_layers, update
from lora_runner.certificate.ways.case import Case, Setting

FUSED_CAPABILITY = 9
"""Major compute capability from which the fused path's kernels are used."""
FUSED_SHARED_BYTES = 209 * 1024
"""Shared memory of a block of threads that they need, as compiled for capability 10; for 9 a little less."""
LIGER = "liger"
FUSED_DTYPE = torch.bfloat16
FUSED = "triton"
"""Name of the fused path's way of each kind."""
WHOLE_TILES = "triton whole tiles"
"""Of products on a device where the bits of an element depend on the size of its tile."""


@dataclass(frozen=True, kw_only=True)
class Way:
    """One way to compute a kind."""

    kind: str
    name: str
    cases: Callable[[Setting], Iterator[Case]]
    """Made when it is called, with fresh inputs; imports what it needs."""
    devices: tuple[str, ...] = ("cuda", "cpu")
    fused: bool = False
    """Whether it is a kernel of the fused path, which has needs of its own."""
    packages: tuple[str, ...] = ()
    """That it needs."""
    environment: tuple[tuple[str, str], ...] = ()
    """Variables that must be set before the process uses CUDA."""

    def can_be_tried(self, device: DeviceFacts, dtype: torch.dtype) -> bool:
        """Whether this machine has what the way needs to compute in `dtype`."""
        return (
            device.type in self.devices
            and (not self.fused or has_fused_kernels(device, dtype))
            and all(find_spec(package) is not None for package in self.packages)
        )


def has_fused_kernels(device: DeviceFacts, dtype: torch.dtype) -> bool:
    """Whether the fused path's kernels can compute in `dtype` on a device."""
    return (
        device.capability is not None
        and device.capability[0] >= FUSED_CAPABILITY
        and device.shared_bytes >= FUSED_SHARED_BYTES
        and dtype == FUSED_DTYPE
    )


def ways_for(device: DeviceFacts, dtype: torch.dtype) -> list[Way]:
    """The ways that can be tried on a device in `dtype`, those of today's path first."""
    return [way for way in WAYS if way.can_be_tried(device, dtype)]


def _liger(kind: str, cases: Callable[[Setting], Iterator[Case]]) -> Way:
    return Way(kind=kind, name=LIGER, cases=cases, devices=("cuda",), packages=("triton", "liger_kernel"))


def _cublas(name: str) -> Way:
    return Way(
        kind="products",
        name=name,
        cases=partial(products.cases, product=products.over_all_rows),
        devices=("cuda",),
        environment=tuple(CUBLAS_SETTINGS[name].items()),
    )


def _triton(kind: str, cases: Callable[[Setting], Iterator[Case]], name: str = FUSED) -> Way:
    return Way(
        kind=kind,
        name=name,
        cases=cases,
        devices=("cuda",),
        fused=True,
        packages=("triton",),
    )


WAYS: tuple[Way, ...] = (
    Way(
        kind="products",
        name="grouped",
        cases=partial(products.cases, product=products.by_block, over_all_rows=False),
    ),
    Way(kind="adapters", name="grouped", cases=adapters.grouped),
    Way(kind="attention", name="efficient", cases=attention.in_buckets, devices=("cuda",)),
    Way(kind="attention", name="sdpa", cases=attention.in_buckets, devices=("cpu",)),
    Way(kind="norms", name="transformers", cases=row_layers.own_norm),
    _liger("norms", row_layers.liger_norm),
    Way(kind="rotary", name="transformers", cases=row_layers.own_rotary),
    _liger("rotary", row_layers.liger_rotary),
    Way(kind="activations", name="transformers", cases=row_layers.own_activation),
    _liger("activations", row_layers.liger_activation),
    _triton("products", partial(products.cases, product=products.fixed_kernel)),
    _triton(
        "products",
        partial(products.cases, product=partial(products.fixed_kernel, halves_last=False)),
        WHOLE_TILES,
    ),
    _triton("adapters", adapters.fused),
    _triton("attention", attention.fused),
    _triton("norms", row_layers.fused_norm),
    _triton("rotary", row_layers.fused_rotary),
    _triton("activations", row_layers.fused_activation),
    Way(kind="output", name="one chunk", cases=output.one_chunk),
    Way(kind="output", name="a chunk a trial", cases=output.chunk_a_trial),
    Way(kind="update", name="fused", cases=update.for_all_trials),
    *map(_cublas, CUBLAS_SETTINGS),
)
