"""Matmuls in float32 by oneDNN, on CPUs where torch's own are slow.

torch multiplies with MKL, which uses AVX-512 on Intel CPUs only. oneDNN, which also comes with torch, uses it
wherever the CPU has it: on two cores of an AMD EPYC (Zen 5) 404 to 459 GFLOP/s beside MKL's 202 to 215, on
blocks of 300 rows and weights of 576 x 1536.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor

WIDE = 1 << 18
"""oneDNN is used for weights of at least this many elements: it compiles a kernel for each new number of rows
(about a millisecond), which smaller weights do not repay.

Decided by the weight alone, or a trial's numbers would depend on its neighbours' rows.
"""


def is_used_for(x: Tensor, weight: Tensor) -> bool:
    """Whether oneDNN multiplies `x` (t, k) by `weight` (k, n)."""
    return (
        weight.numel() >= WIDE
        and x.device.type == "cpu"
        and x.dtype == weight.dtype == torch.float32
        and is_faster()
    )


def matmul(x: Tensor, weight: Tensor) -> Tensor:
    """`x` (t, k) times `weight` (k, n), which may be transposed -> (t, n)."""
    # What torch.compile uses for a linear layer on a CPU; it has no public name.
    out: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight.t(), None, "none", [], "")
    return out


@lru_cache
def is_faster() -> bool:
    """Whether this CPU has AVX-512 that MKL does not use; the same in every process on it."""
    return (
        is_available()
        and torch.backends.cpu.get_cpu_capability() == "AVX512"
        and "AuthenticAMD" in _cpu_description()
    )


def is_available() -> bool:
    """Whether this build of torch has oneDNN."""
    return torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")


def _cpu_description() -> str:
    try:
        with Path("/proc/cpuinfo").open(encoding="utf-8", errors="replace") as file:
            return file.read(4096)
    except OSError:  # not Linux
        return ""
