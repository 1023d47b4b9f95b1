"""The device that memory is planned for: this machine's, or a GPU that is only named."""

from __future__ import annotations

import os
import re
import shutil
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import psutil
import torch

from files_and_text.nearest_name import did_you_mean
from files_and_text.numbers import plural
from lora_runner.base.load_model import resolve_dtype
from lora_runner.certificate.ways.registry import FUSED_DTYPE
from lora_runner.errors import DeviceError
from lora_runner.fused.compute_path import Machine
from lora_runner.graphs.graph import CudaGraphPool

GIB = 2**30
NVIDIA_DRIVER = Path("/proc/driver/nvidia/version")
_SIZE = re.compile(r"([-+]?\d+(?:\.\d+)?)\s*(?:g|gb|gib)?", re.IGNORECASE)
_FUSED_GPUS = {"H100": 80, "H100-NVL": 94, "H200": 141, "GH200": 96, "B200": 180}
"""GiB by name, as published. Of compute capability 9 or 10 with the shared memory that fused kernels need."""
_OTHER_GPUS = {
    "A100-40GB": 40,
    "A100-80GB": 80,
    "A10": 24,
    "A10G": 24,
    "A30": 24,
    "A40": 48,
    "A6000": 48,
    "L4": 24,
    "L40": 48,
    "L40S": 48,
    "RTX 3060": 12,
    "RTX 3090": 24,
    "RTX 4070": 12,
    "RTX 4080": 16,
    "RTX 4090": 24,
    "RTX 5080": 16,
    "RTX 5090": 32,
    "RTX 6000 Ada": 48,
    "T4": 16,
    "V100-16GB": 16,
    "V100-32GB": 32,
}
"""The others, whose passes take the general path."""
GPUS = _FUSED_GPUS | _OTHER_GPUS


@dataclass(frozen=True, kw_only=True)
class PlannedDevice:
    """A device, whether it is here or not."""

    kind: str
    """cuda or cpu."""
    name: str
    """For people: `NVIDIA H200`, `2 CPU cores`, `a GPU with 24 GiB`."""
    memory: float
    """Bytes: all of a GPU's, or what is free of the machine's."""
    count: int
    """GPUs of this kind; 1 without."""
    is_here: bool = True
    has_fused_kernels: bool = False
    """Of a GPU that is not here: whether it has what fused kernels need."""

    @classmethod
    def here(cls) -> PlannedDevice:
        """What torch finds on this machine."""
        if torch.cuda.is_available():
            device = torch.device("cuda", torch.cuda.current_device())
            return cls(
                kind="cuda",
                name=torch.cuda.get_device_name(device),
                memory=float(torch.cuda.get_device_properties(device).total_memory),
                count=torch.cuda.device_count(),
            )
        memory = float(psutil.virtual_memory().available)
        return cls(kind="cpu", name=plural(num_cores(), "CPU core"), memory=memory, count=1)

    @classmethod
    def named(cls, text: str, count: int = 1) -> PlannedDevice:
        """A GPU by its memory (`24GiB`) or name (`H200`, `RTX 4090`). Raises DeviceError."""
        if count < 1:
            raise DeviceError(f"--gpus must be at least 1; got {count}")
        if (size := _SIZE.fullmatch(text.strip())) is not None:
            gib = float(size[1])
            if not 1 <= gib <= 1024:
                raise DeviceError(f"--gpu must have 1 to 1024 GiB of memory, such as 24GiB; got {text!r}")
            return cls(
                kind="cuda", name=f"a GPU with {gib:g} GiB", memory=gib * GIB, count=count, is_here=False
            )
        known = {_plain(name): name for name in GPUS}
        name = known.get(_plain(text))
        if name is None:
            variants = [name for name in GPUS if _plain(text) and _plain(name).startswith(_plain(text))]
            hint = f" Is it {' or '.join(variants)}?" if variants else did_you_mean(text, GPUS)
            known_names = hint or f" Known: {', '.join(GPUS)}."
            rule = "--gpu must be a GPU's memory, such as 24GiB, or its name"
            raise DeviceError(f"{rule}; got {text!r}.{known_names}")
        return cls(
            kind="cuda",
            name=name,
            memory=GPUS[name] * float(GIB),
            count=count,
            is_here=False,
            has_fused_kernels=name in _FUSED_GPUS,
        )

    @property
    def torch_device(self) -> torch.device:
        return torch.device(self.kind)

    def machine(self, dtype: torch.dtype) -> Machine:
        """What decides about the path of passes there."""
        device = self.torch_device
        if self.is_here:
            return Machine.of(device, dtype)
        if not self.has_fused_kernels:
            return Machine(False, f"{self.name} is not known to have what the fused kernels need")
        if dtype != FUSED_DTYPE:
            return Machine(False, f"the compute dtype is {dtype}, fused kernels compute in bfloat16")
        if find_spec("triton") is None:
            return Machine(False, "triton is not installed here, so fused kernels cannot be counted")
        return Machine(True, f"{self.name}, bfloat16", lambda: CudaGraphPool(device))

    def dtype(self, compute_dtype: str) -> torch.dtype:
        """The dtype of its arithmetic."""
        return resolve_dtype(compute_dtype, self.torch_device)


def used_devices(device: torch.device, *, spread: bool) -> dict[str, int]:
    """What computes here, as name -> count; `spread`: over all GPUs that are visible."""
    if device.type == "cuda":
        return {torch.cuda.get_device_name(device): torch.cuda.device_count() if spread else 1}
    return {"CPU core": num_cores()}


def num_cores() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def unused_gpu() -> str | None:
    """Why an NVIDIA GPU of this machine is not used, as a sentence; None where there is none, or it is."""
    if torch.cuda.is_available():
        return None
    if not NVIDIA_DRIVER.exists() and shutil.which("nvidia-smi") is None:
        return None
    if torch.version.cuda is None:
        why = f"torch {torch.__version__} is built without CUDA; install a build of torch with CUDA"
    elif not os.environ.get("CUDA_VISIBLE_DEVICES", "0"):
        why = "CUDA_VISIBLE_DEVICES is empty, which hides it; unset it"
    else:
        why = f"torch {torch.__version__} finds no usable CUDA device; `nvidia-smi` shows its driver"
    return f"this machine has an NVIDIA GPU that is not used: {why}"


def _plain(name: str) -> str:
    return re.sub(r"nvidia|geforce|tesla|[^a-z0-9]", "", name.lower())
