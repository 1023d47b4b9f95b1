"""Dropout masks as a pure function of (seed, step, micro-batch, layer, element).

Counter-based (Philox 4x64-10, Salmon et al., 2011), with no state between draws: a trial has the same masks
alone, in any pack, after a resume, and when gradient checkpointing recomputes a layer. One 64-bit word
serves four elements, so the dropout probability is rounded to 1/65536.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

_MASK64 = (1 << 64) - 1
LEVELS = 1 << 16


def dropout_key(seed: int, layer: int, micro_step: int) -> tuple[int, int]:
    """Philox's two 64-bit key words; `micro_step` counts the micro-batches of all steps."""
    return mix(seed, layer), micro_step


def threshold(p: float) -> int:
    """An element is dropped when its 16 random bits are below this."""
    return round(p * LEVELS)


def dropout_factors(
    shape: tuple[int, int], p: float, key: tuple[int, int], device: torch.device, dtype: torch.dtype
) -> Tensor:
    """Factors by which dropout multiplies: 0, or what keeps the mean; drawn by row-major index."""
    if p == 0:
        return torch.ones(shape, device=device, dtype=dtype)
    limit = threshold(p)
    return keep_mask(shape, limit, key, device).to(dtype) * (LEVELS / (LEVELS - limit))


def keep_mask(shape: tuple[int, int], limit: int, key: tuple[int, int], device: torch.device) -> Tensor:
    """Whether each element's 16 random bits reach `limit`, (rows, columns) bool."""
    if device.type == "cuda":
        from lora_runner.layers.dropout_kernel import philox_keep_mask  # needs triton

        return philox_keep_mask(shape, limit, key, device)
    if device.type == "meta":  # a dry run, which draws nothing
        return torch.empty(shape, dtype=torch.bool, device=device)
    count = shape[0] * shape[1]
    words = np.random.Philox(key=np.array(key, dtype=np.uint64)).random_raw(-(-count // 4))
    return torch.from_numpy(words.view(np.uint16)[:count].reshape(shape) >= limit)


def mix(*values: int) -> int:
    """Combine integers into one well-spread 63-bit seed (splitmix64's finaliser over each value)."""
    state = 0
    for value in values:
        state = (state + (value & _MASK64) + 0x9E3779B97F4A7C15) & _MASK64
        state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & _MASK64
        state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & _MASK64
        state ^= state >> 31
    return state & (_MASK64 >> 1)
