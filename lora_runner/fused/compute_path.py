"""Which path a model's passes take on a device, and why: the fused one, or the general one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec

import torch

from lora_runner.graphs.graph import CudaGraphPool, GraphPool

LEAST_CAPABILITY = 9
"""Major compute capability from which fixed kernels over all rows are as fast as a product for each trial."""


@dataclass(frozen=True)
class Machine:
    """What of a device decides about the path."""

    has_fused_kernels: bool
    reason: str
    """Why, in words."""
    new_pool: Callable[[], GraphPool] | None = None
    """Where captured passes are kept; None: nothing can be captured."""

    @classmethod
    def of(cls, device: torch.device, dtype: torch.dtype) -> Machine:
        """The machine of this process; kernels have been checked on it by a certificate, if one was made."""
        if device.type != "cuda":
            return cls(False, f"the device is {device.type}, fused kernels need CUDA")
        major, minor = torch.cuda.get_device_capability(device)
        if major < LEAST_CAPABILITY:
            return cls(False, f"compute capability {major}.{minor}, fused kernels are used from 9.0 on")
        if dtype != torch.bfloat16:
            return cls(False, f"the compute dtype is {dtype}, fused kernels compute in bfloat16")
        if find_spec("triton") is None:
            return cls(False, "triton is not installed")
        reason = f"compute capability {major}.{minor}, bfloat16"
        return cls(True, reason, lambda: CudaGraphPool(device))


@dataclass(frozen=True)
class ComputePath:
    """The path of a model's passes."""

    is_fused: bool
    reason: str
    """Why, in words."""
    parts: Mapping[str, str] = field(default_factory=dict)
    """By part of the model (attention, norms, ...), how it is computed."""

    def describe(self) -> list[str]:
        """Lines for the plan and the study."""
        name = "fused" if self.is_fused else "general"
        return [f"{name}: {self.reason}", *(f"{part}: {how}" for part, how in self.parts.items())]


class NotFusedError(Exception):
    """A model has a part without a fused form; the message says which, in words."""
