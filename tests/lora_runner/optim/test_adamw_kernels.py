"""The update's launches and what their kernels compile to, without a GPU."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch
import triton
from torch import Tensor
from triton.backends.compiler import GPUTarget
from triton.backends.nvidia.compiler import get_ptxas
from triton.compiler import ASTSource

from lora_runner.optim import adamw_kernels as kernels
from lora_runner.optim.flat_buffers import BLOCK, FlatBuffers
from lora_runner.optim.group_step import GroupStep

KERNELS = ("block_squares_kernel", "trial_squares_kernel", "adamw_kernel")
ORIGINAL = {name: getattr(kernels, name) for name in KERNELS}
TYPES = {torch.float32: "*fp32", torch.int32: "*i32"}
# Loads and stores of 4 elements: a block is 8 elements per thread and buffer.
VECTORS = {"block_squares_kernel": (2, 0), "trial_squares_kernel": (0, 0), "adamw_kernel": (8, 6)}


class Launches(dict[str, list[tuple[tuple[int, ...], tuple[Tensor, ...], dict[str, Any]]]]):
    """By kernel: grid, tensors and keywords of every launch, none of which runs."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__({name: [] for name in KERNELS})
        for name in KERNELS:
            monkeypatch.setattr(kernels, name, _Recorder(self[name]))


class _Recorder:
    def __init__(self, launches: list[Any]) -> None:
        self.launches = launches

    def __getitem__(self, grid: tuple[int, ...]) -> Any:
        return lambda *tensors, **keywords: self.launches.append((grid, tensors, keywords))


def launch_pack(num_trials: int = 8) -> None:
    """Two groups per trial, of 3 blocks and of 1."""
    size = num_trials * 4 * BLOCK
    buffers = FlatBuffers(*torch.zeros(4, size))
    fixed = {
        "beta1": 0.9,
        "beta2": 0.99,
        "epsilon": 1e-8,
        "weight_decay": 0.1,
        "max_grad_norm": 1.0,
        "step": 7,
    }
    groups = [
        GroupStep(trial=trial, start=start * BLOCK, stop=stop * BLOCK, learning_rate=1e-3, **fixed)
        for trial in range(num_trials)
        for start, stop in ((trial * 4, trial * 4 + 3), (trial * 4 + 3, trial * 4 + 4))
    ]
    kernels.squared_norms(buffers, groups, num_trials)
    kernels.clip_and_step(buffers, groups, torch.zeros(num_trials))


def test_a_pack_is_three_launches(monkeypatch: pytest.MonkeyPatch) -> None:
    launches = Launches(monkeypatch)
    launch_pack()
    grids = {name: [grid for grid, _, _ in made] for name, made in launches.items()}
    assert grids == dict(zip(KERNELS, ([(32,)], [(8,)], [(32,)]), strict=True))


def test_tables_are_made_once_per_set_of_segments(monkeypatch: pytest.MonkeyPatch) -> None:
    launches = Launches(monkeypatch)
    launch_pack()
    launch_pack()
    first, second = (tensors for _, tensors, _ in launches["adamw_kernel"])
    same = [one is other for one, other in zip(first, second, strict=True)]
    kept = [name for name, equal in zip(tensors_of("adamw_kernel"), same, strict=True) if equal]
    assert kept == ["block_rows", "row_offsets", "row_trials"]


def tensors_of(name: str) -> list[str]:
    """A kernel's arguments that are tensors, in their order; constants are in capitals."""
    return [p for p in ORIGINAL[name].arg_names if not p.isupper()]


@pytest.mark.slow
@pytest.mark.parametrize("capability", [80, 90, 100])
def test_kernels_compile_to_vector_accesses_without_spills(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capability: int
) -> None:
    """Compiled as the launcher does: with the types, alignments and options of its own launches."""
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path / "cache"))
    launches = Launches(monkeypatch)
    launch_pack()
    for name, ((_, tensors, keywords),) in launches.items():
        kernel = ORIGINAL[name]
        # A launch assumes 16 bytes where an address is a multiple of it: true of whole CUDA tensors as well.
        assert all(tensor.data_ptr() % 16 == 0 for tensor in tensors), name
        types = dict(zip(tensors_of(name), (TYPES[t.dtype] for t in tensors), strict=True))
        constants = {key: keywords.pop(key) for key in kernel.arg_names if key.isupper()}
        source = ASTSource(
            kernel,
            {argument: types.get(argument, "constexpr") for argument in kernel.arg_names},
            constexprs=constants,
            attrs={
                (place,): [["tt.divisibility", 16]]
                for place, argument in enumerate(kernel.arg_names)
                if argument in types
            },
        )
        compiled = triton.compile(source, target=GPUTarget("cuda", capability, 32), options=keywords)
        assert compiled.metadata.enable_fp_fusion is False
        ptx = compiled.asm["ptx"]
        vectors = (r"ld\.global\S*\.v4\.b32", r"st\.global\S*\.v4\.b32")
        assert tuple(len(re.findall(vector, ptx)) for vector in vectors) == VECTORS[name], name
        if name == "adamw_kernel":
            # torch's kernel rounds divisions and the root correctly and flushes no denormals.
            assert ".ftz" not in ptx
            assert not re.findall(r"div\.(?:full|approx)|sqrt\.approx", ptx)
            # The plain minimum drops a NaN norm; the interpreter's does not, so only this test sees it.
            assert not re.findall(r"(?:min|max)\.f32", ptx)
        assert spilled(ptx, capability, tmp_path) == (0, 0, 0), name


def spilled(ptx: str, capability: int, folder: Path) -> tuple[int, ...]:
    """Bytes of stack, spill stores and spill loads, from the assembler in Triton."""
    (folder / "kernel.ptx").write_text(ptx)
    (architecture,) = re.findall(r"^\.target (\w+)", ptx, re.MULTILINE)
    said = subprocess.run(
        [get_ptxas(capability).path, "-v", f"--gpu-name={architecture}", "kernel.ptx", "-o", "kernel.cubin"],
        cwd=folder,
        capture_output=True,
        text=True,
        check=True,
    ).stderr
    (found,) = re.findall(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads", said)
    return tuple(map(int, found))
