"""Which path a model's passes take on a device, and why: the fused one, or the general one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from importlib.util import find_spec

import torch

from lora_runner.certificate.decision import Decision
from lora_runner.certificate.device_facts import shared_bytes_of
from lora_runner.certificate.ways.registry import FUSED, FUSED_CAPABILITY, FUSED_DTYPE, FUSED_SHARED_BYTES
from lora_runner.graphs.graph import CudaGraphPool, GraphPool


@dataclass(frozen=True)
class Machine:
    """What of a device decides about the path."""

    has_fused_kernels: bool
    reason: str
    """Why, in words."""
    new_pool: Callable[[], GraphPool] | None = None
    """Where captured passes are kept; None: nothing can be captured."""
    decision: Decision = field(default_factory=Decision)
    """What the certificate of the machine allows, if there is one."""

    @classmethod
    def of(cls, device: torch.device, dtype: torch.dtype, decision: Decision | None = None) -> Machine:
        """The machine of this process; `decision` is what its certificate allows, if one was made."""
        decision = decision or Decision()
        found = cls._of(device, dtype, decision)
        return replace(found, decision=decision)

    @classmethod
    def _of(cls, device: torch.device, dtype: torch.dtype, decision: Decision) -> Machine:
        if device.type != "cuda":
            return cls(False, f"the device is {device.type}, fused kernels need CUDA")
        major, minor = torch.cuda.get_device_capability(device)
        if major < FUSED_CAPABILITY:
            return cls(
                False,
                f"compute capability {major}.{minor}, fused kernels are used from {FUSED_CAPABILITY}.0 on",
            )
        if (shared := shared_bytes_of(device)) < FUSED_SHARED_BYTES:
            reason = f"compute capability {major}.{minor} has {shared // 1024} KiB of shared memory a block"
            return cls(False, f"{reason}, the fused kernels need {FUSED_SHARED_BYTES // 1024}")
        if dtype != FUSED_DTYPE:
            return cls(False, f"the compute dtype is {dtype}, fused kernels compute in bfloat16")
        if find_spec("triton") is None:
            return cls(False, "triton is not installed")
        if decision.refusal is not None:
            return cls(False, decision.refusal)
        reason = f"compute capability {major}.{minor}, bfloat16"
        if decision.certificate is not None:
            reason += f", its kernels are invariant on this machine (checked {decision.certificate.made_at})"
        return cls(True, reason, lambda: CudaGraphPool(device))


@dataclass(frozen=True)
class ComputePath:
    """The path of a model's passes."""

    is_fused: bool
    reason: str
    """Why, in words."""
    parts: Mapping[str, str] = field(default_factory=dict)
    """By part of the model (attention, norms, ...), how it is computed."""
    product: str = ""
    """The product over all rows that is used for frozen weights, if one was chosen by a certificate."""

    @property
    def name(self) -> str:
        """Equal for paths whose rounding is the same on one device."""
        kind = "fused" if self.is_fused else "general"
        product = self.product or (FUSED if self.is_fused else "")
        return f"{kind}, frozen products by {product}" if product else kind

    def describe(self) -> list[str]:
        """Lines for the plan and the study."""
        name = "fused" if self.is_fused else "general"
        product = [f"frozen products: {self.product} over all rows"] if self.product else []
        parts = (f"{part}: {how}" for part, how in self.parts.items())
        return [f"{name}: {self.reason}", *product, *parts]


class NotFusedError(Exception):
    """A model has a part without a fused form; the message says which, in words."""
