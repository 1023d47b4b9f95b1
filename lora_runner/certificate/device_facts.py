"""What a machine's numbers may depend on: the device, its driver and the versions of the libraries."""

from __future__ import annotations

import os
import platform
import re
import subprocess
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

PACKAGES = {
    "torch": ("torch",),
    "triton": ("triton",),
    "transformers": ("transformers",),
    "bitsandbytes": ("bitsandbytes",),
    "liger-kernel": ("liger-kernel",),
    "cuBLAS": ("nvidia-cublas", "nvidia-cublas-cu13", "nvidia-cublas-cu12"),
}
"""Name in a certificate -> names under which it may be installed."""


@dataclass(frozen=True, kw_only=True)
class DeviceFacts:
    """A device as far as its numbers may depend on it; equal facts share a certificate."""

    type: str
    """cuda or cpu."""
    name: str
    capability: tuple[int, int] | None
    """Compute capability; None on a CPU."""
    driver: str | None
    """Version of the GPU's driver; None on a CPU, or where it cannot be found out."""
    shared_bytes: int
    """The most shared memory that a block of threads may have; 0 on a CPU."""
    threads: int
    """torch's threads on a CPU; 0 on CUDA."""
    versions: tuple[tuple[str, str], ...]
    """Library and version."""

    @classmethod
    def of(cls, device: torch.device) -> DeviceFacts:
        """The facts of a device of this machine."""
        versions = tuple((name, found) for name in PACKAGES if (found := _version(name)) is not None)
        if device.type == "cuda":
            properties = torch.cuda.get_device_properties(device)
            return cls(
                type="cuda",
                name=properties.name,
                capability=(properties.major, properties.minor),
                driver=_driver(),
                shared_bytes=shared_bytes_of(device),
                threads=0,
                versions=(*versions, ("CUDA", str(torch.version.cuda))),
            )
        return cls(
            type=device.type,
            name=f"{_cpu_name()}, {torch.backends.cpu.get_cpu_capability()}",
            capability=None,
            driver=None,
            shared_bytes=0,
            threads=torch.get_num_threads(),
            versions=versions,
        )

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> DeviceFacts:
        """Read what `dataclasses.asdict` made and JSON changed to lists."""
        capability = values["capability"]
        return cls(
            **{
                **values,
                "capability": None if capability is None else (int(capability[0]), int(capability[1])),
                "versions": tuple((str(name), str(found)) for name, found in values["versions"]),
            }
        )

    @property
    def file_stem(self) -> str:
        """The device's name as part of a file's name."""
        return re.sub(r"[^A-Za-z0-9]+", "-", self.name).strip("-").lower()

    @property
    def description(self) -> str:
        """In one line."""
        parts = [self.name]
        if self.capability is not None:
            parts.append(f"compute capability {self.capability[0]}.{self.capability[1]}")
        if self.driver is not None:
            parts.append(f"driver {self.driver}")
        if self.threads:
            parts.append(f"{self.threads} threads")
        return ", ".join([*parts, *(f"{name} {found}" for name, found in self.versions)])


def shared_bytes_of(device: torch.device) -> int:
    """The most shared memory that a block of threads may have on a GPU, in bytes."""
    major, _ = torch.cuda.get_device_capability(device)
    found = None
    if torch.cuda.is_available():
        found = getattr(torch.cuda.get_device_properties(device), "shared_memory_per_block_optin", None)
    # Older versions of torch do not tell it: CUDA C++ Programming Guide, "Technical Specifications".
    return int(found or {8: 99, 12: 99}.get(major, 227) * 1024)


def _version(name: str) -> str | None:
    for package in PACKAGES[name]:
        with suppress(PackageNotFoundError):
            return version(package)
    return None


def _driver() -> str | None:
    """Version of NVIDIA's kernel module, such as 580.95.05."""
    with suppress(OSError):
        text = Path("/proc/driver/nvidia/version").read_text(encoding="utf-8", errors="replace")
        if found := re.search(r"\b\d{3,}(?:\.\d+)+\b", text):
            return found[0]
    with suppress(OSError, subprocess.SubprocessError):
        command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
        return done.stdout.split()[0] if done.stdout.split() else None
    return None


def _cpu_name() -> str:
    with suppress(OSError):
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
        if found := re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE):
            return found[1].strip()
    return platform.processor() or platform.machine() or os.name
