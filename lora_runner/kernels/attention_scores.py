"""What the forward and the backward kernels of attention share: options, tiles, scores and what is visible.

A program's rows are pairs of a token and one of the query heads that share a key head: 4 heads of 16 tokens
fill a tile of 64 rows. So keys and values are read once for all these heads, and a short sequence, or the one
token of a cached one, wastes less of a tile.

Shapes: T rows of a pass, H query heads, G key heads, D head size.
"""

# Triton is untyped; mypy cannot check kernels.
# mypy: disable-error-code="import-untyped, untyped-decorator, no-untyped-def"

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import triton
import triton.language as tl
from torch import Tensor

from lora_runner.layout.pass_tables import TILE_ROWS

LOG2_E = tl.constexpr(1.4426950408889634)


@dataclass(frozen=True)
class AttentionOptions:
    """What a layer's attention computes: softmax(soft cap(q kᵀ · scale)) v over the visible keys."""

    scale: float
    window: int = 0
    """A token sees itself and the `window` - 1 tokens before it; 0: all before it."""
    soft_cap: float = 0.0
    """Scores become soft_cap · tanh(score / soft_cap); 0: they stay."""


@dataclass(frozen=True)
class HeadTiles:
    """How heads and tokens are laid into tiles; follows from a layer's own sizes alone."""

    heads: int
    key_heads: int
    head_size: int

    @classmethod
    def of(cls, query: Tensor, key: Tensor) -> HeadTiles:
        """For query (T, H, D) and key (T, G, D)."""
        return cls(query.shape[1], key.shape[1], query.shape[2])

    @property
    def shared(self) -> int:
        """Query heads in a tile: the largest divisor up to 16 of those that share a key head."""
        group = self.heads // self.key_heads
        return max(count for count in range(1, min(group, 16) + 1) if group % count == 0)

    @property
    def splits(self) -> int:
        """Tiles for all query heads that share a key head."""
        return self.heads // self.key_heads // self.shared

    @property
    def parts(self) -> int:
        """Tiles for all tokens of a tile of the tables."""
        return -(-TILE_ROWS // (TILE_ROWS // self.shared))

    def constants(self, options: AttentionOptions) -> dict[str, Any]:
        """Constants of all kernels."""
        padded = max(16, triton.next_power_of_2(self.head_size))
        return {
            "HEADS": self.heads,
            "KEY_HEADS": self.key_heads,
            "SHARED": self.shared,
            "HEAD_SIZE": self.head_size,
            "PADDED_SIZE": padded,
            "WINDOW": options.window,
            "SOFT_CAP": options.soft_cap,
            "TILE": TILE_ROWS,
            # Accumulators of 64 x 256 in fp32 take two warp groups' registers.
            "num_warps": 8 if padded > 128 else 4,
        }


@triton.jit
def capped(products, scale, SOFT_CAP: tl.constexpr):
    """Scores in units of log 2, and tanh of the uncapped ones (1 without a cap)."""
    if SOFT_CAP > 0.0:
        # 1 - 2 / (1 + e^2x) is right at both ends of the range, without a branch.
        tanh = 1.0 - 2.0 / (1.0 + tl.exp2(products * (scale * (2.0 / SOFT_CAP) * LOG2_E)))
        return tanh * (SOFT_CAP * LOG2_E), tanh
    else:
        return products * (scale * LOG2_E), products


@triton.jit
def visible(query_positions, key_positions, WINDOW: tl.constexpr):
    """Which keys a query sees, by position in the sequence; the two broadcast."""
    seen = key_positions <= query_positions
    if WINDOW > 0:
        seen = seen & (key_positions > query_positions - WINDOW)
    return seen


@triton.jit
def load_rows(pointers, row_mask, dims, HEAD_SIZE: tl.constexpr, PADDED_SIZE: tl.constexpr):
    """Rows (R, PADDED_SIZE) of `pointers`; those outside of the mask and the padding are zero."""
    if HEAD_SIZE == PADDED_SIZE:
        return tl.load(pointers, mask=row_mask[:, None], other=0.0)
    else:
        return tl.load(pointers, mask=row_mask[:, None] & (dims < HEAD_SIZE)[None, :], other=0.0)


@triton.jit
def store_rows(pointers, values, row_mask, dims, HEAD_SIZE: tl.constexpr, PADDED_SIZE: tl.constexpr):
    """Write rows as `load_rows` reads them."""
    values = values.to(pointers.dtype.element_ty)
    if HEAD_SIZE == PADDED_SIZE:
        tl.store(pointers, values, mask=row_mask[:, None])
    else:
        tl.store(pointers, values, mask=row_mask[:, None] & (dims < HEAD_SIZE)[None, :])
