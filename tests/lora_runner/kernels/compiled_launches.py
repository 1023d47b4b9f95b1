"""What a launch compiles to for a device that is not there: the same types, alignments and options."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import triton
from triton.backends.compiler import GPUTarget
from triton.runtime.driver import driver

from lora_runner.kernels.launch import Launch, observed

CUOBJDUMP = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"
SHARED_BYTES = {80: 163 * 1024, 90: 227 * 1024, 100: 227 * 1024}
"""The most shared memory of a thread block, by compute capability (CUDA C++ Programming Guide)."""


class _NoDevice:
    """As much of Triton's driver as compiling needs; devices are numbered by their capability."""

    def __init__(self, capability: int) -> None:
        self.capability = capability

    def get_current_target(self) -> GPUTarget:
        return GPUTarget("cuda", self.capability, 32)

    def get_current_device(self) -> int:
        return self.capability

    def get_current_stream(self, device: int) -> int:
        return 0


@contextmanager
def _compiling_for(capability: int) -> Iterator[None]:
    before = driver._active
    driver.set_active(_NoDevice(capability))  # type: ignore[arg-type]
    try:
        yield
    finally:
        driver._active = before


def launches_of(call: Callable[[], object]) -> list[Launch]:
    """The launches of a function that is called on the meta device; one for each kernel."""
    found: dict[str, Launch] = {}
    with observed(lambda name, launch: found.setdefault(name, launch) and None):
        call()
    return list(found.values())


def compiled(launch: Launch, capability: int) -> Any:
    """Triton's kernel for a launch on a device of this capability; the same for launches that share one."""
    with _compiling_for(capability):
        return launch.kernel.warmup(*launch.arguments, grid=launch.grid, **launch.options)


class Compiled:
    """A kernel compiled for one capability."""

    def __init__(self, launch: Launch, capability: int, folder: Path) -> None:
        made = compiled(launch, capability)
        self.capability = capability
        self.ptx: str = made.asm["ptx"]
        self.shared_bytes: int = made.metadata.shared
        (folder / "kernel.cubin").write_bytes(made.asm["cubin"])
        command = [CUOBJDUMP, "--dump-resource-usage", "kernel.cubin"]
        said = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True).stdout
        self.resources = {name: int(value) for name, value in re.findall(r"([A-Z]+):(\d+)", said)}
        """Of a thread: registers (REG), and bytes in memory (STACK, LOCAL), where spilled ones go."""

    @property
    def multiplies_matrices(self) -> bool:
        """Whether it uses the matrix instructions of its capability."""
        name = {8: r"mma\.sync", 9: r"wgmma\.mma_async", 10: r"tcgen05\.mma"}[self.capability // 10]
        return re.search(name, self.ptx) is not None

    @property
    def loads_16_bytes(self) -> bool:
        """Whether it loads 16 bytes a thread at once, or whole tiles."""
        vector = r"ld\.global\S*\.(?:v4\.b32|v2\.b64|v8\.b32|v4\.b64)"
        tile = r"cp\.async\.c[ga]\.shared\.global \[[^\]]*\], \[[^\]]*\], 0x10|cp\.async\.bulk\.tensor"
        return re.search(f"{vector}|{tile}", self.ptx) is not None
