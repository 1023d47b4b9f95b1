"""Whether kernels run in Triton's interpreter here, and two operations of it mended for these tests."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import triton.language as tl
from triton.runtime import interpreter

FOLDER = Path(__file__).parent
OF_MODELS = FOLDER.parent / "fused"
"""Tests of whole models whose parts are such kernels; they use the fixtures of the folders above."""
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
NOT_INTERPRETED = ("test_interpreter.py", "test_compiled.py")
"""Tests of this folder that run in the usual process; all others need CUDA or the interpreter."""
DEVICE = torch.device("cpu" if INTERPRETED or not torch.cuda.is_available() else "cuda")
DOT_DTYPES = (torch.float32, torch.bfloat16) if INTERPRETED else (torch.bfloat16, torch.float16)
"""Of kernels with `tl.dot`; in float32 a device would need more shared memory than it has.

The interpreter adds and multiplies bfloat16 as integers: a kernel converts to float32 before it does either.
"""


def dot_in_order(self: Any, a: Any, b: Any, d: Any, *_: Any) -> interpreter.TensorHandle:
    """`tl.dot` (m, k) times (k, n) plus (m, n), the bits of an element given by its row and column alone.

    The interpreter's own calls BLAS, where the position of a row in its tile decides how it is summed, and
    takes the bits of bfloat16 for integers.
    """
    left, right = (_as_numbers(operand) for operand in (a, b))
    total = d.data.copy()
    for inner in range(left.shape[-1]):
        total += left[..., :, inner, None].astype(total.dtype) * right[..., None, inner, :].astype(
            total.dtype
        )
    return interpreter.TensorHandle(total, d.dtype.scalar)


def _as_numbers(operand: Any) -> np.ndarray:
    data: np.ndarray = operand.data
    if operand.dtype.scalar == tl.bfloat16:
        return (data.astype(np.uint32) << 16).view(np.float32)
    return data


_convert_float = interpreter._convert_float


def convert_to_nearest(data: np.ndarray, source: tl.dtype, target: tl.dtype, rounding: Any) -> np.ndarray:
    """Round float32 to the nearest bfloat16, where the interpreter's own conversion truncates it."""
    if rounding is None and source == tl.float32 and target == tl.bfloat16:
        rounded = torch.from_numpy(np.ascontiguousarray(data, dtype=np.float32)).to(torch.bfloat16)
        return rounded.view(torch.int16).numpy().view(np.uint16)
    converted: np.ndarray = _convert_float(data, source, target, rounding)
    return converted


if INTERPRETED:
    interpreter.InterpreterBuilder.create_dot = dot_in_order
    interpreter._convert_float = convert_to_nearest


def select(config: pytest.Config, items: list[pytest.Item], folder: Path) -> None:
    """Deselect the tests of a folder that cannot run in this process; on CUDA they get the mark `gpu`."""
    kept, dropped = list[pytest.Item](), list[pytest.Item]()
    for item in items:
        runs = True
        if item.path.parent == folder:
            of_kernels = item.path.name not in NOT_INTERPRETED
            runs = (INTERPRETED or torch.cuda.is_available()) if of_kernels else not INTERPRETED
            if of_kernels and not INTERPRETED:
                item.add_marker(pytest.mark.gpu)
            if INTERPRETED:  # NumPy warns where it computes with a NaN or an infinity
                item.add_marker(pytest.mark.filterwarnings("ignore::RuntimeWarning"))
        (kept if runs else dropped).append(item)
    if dropped:
        config.hook.pytest_deselected(items=dropped)
        items[:] = kept
