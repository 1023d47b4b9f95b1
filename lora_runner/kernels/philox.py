"""Dropout masks inside a kernel: NumPy's Philox 4x64-10 stream, bit for bit.

The masks are those of `layers/dropout.py`. An element's index is row * in_features + column, with rows
counted within a block. One counter serves 16 consecutive elements: four 64-bit words of four elements each,
lowest bits first.
"""

# mypy: disable-error-code="import-untyped, untyped-decorator, no-untyped-def"
from __future__ import annotations

import triton
import triton.language as tl
from triton.language.random import philox_impl

ELEMENTS = tl.constexpr(16)
"""Per counter."""
ROUNDS = tl.constexpr(10)


@triton.jit
def philox_words(index, key0, key1):
    """The four words of the `index`-th counter (int64, any shape) under the key's two 64-bit words."""
    # NumPy counts up before it draws: its first words come from counter 1.
    counter = (index + 1).to(tl.uint64)
    zero = counter * 0
    return philox_impl(
        counter, zero, zero, zero, zero + key0.to(tl.uint64), zero + key1.to(tl.uint64), ROUNDS
    )


@triton.jit
def keep_tile(first_row, first_column, in_features, limit, key0, key1, BM: tl.constexpr, BK: tl.constexpr):
    """(BM, BK) bool: whether each element's 16 random bits reach `limit`.

    `first_column`, `in_features` and BK are multiples of 16. Call it only where `limit` is above 0: it costs
    about as much as loading the tile.
    """
    rows = (first_row + tl.arange(0, BM)).to(tl.int64)
    groups = first_column // ELEMENTS + tl.arange(0, BK // ELEMENTS)
    index = rows[:, None] * (in_features // ELEMENTS) + groups[None, :]
    w0, w1, w2, w3 = philox_words(index, key0, key1)
    words = tl.join(tl.join(w0, w2), tl.join(w1, w3))  # in the order w0, w1, w2, w3
    words = tl.reshape(words, (BM, BK // 4))
    shifts = (tl.arange(0, 4) * 16).to(tl.uint64)
    bits = ((words[:, :, None] >> shifts[None, None, :]) & 0xFFFF).to(tl.int32)
    return tl.reshape(bits >= limit, (BM, BK))
