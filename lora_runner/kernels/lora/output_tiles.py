"""Tiles of the outputs of sibling layers: each sibling's columns are cut into tiles of their own."""

# mypy: disable-error-code="import-untyped, untyped-decorator, no-untyped-def"
from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def sibling_of_tile(siblings, tile, NUM_SIBLINGS: tl.constexpr, WIDTH: tl.constexpr):
    """The sibling of a tile among those of all siblings, its first tile, and its number of out features."""
    sibling = 0
    first_tile = 0
    out_features = 0
    seen = 0
    for index in range(NUM_SIBLINGS):
        features = tl.load(siblings + index * 4 + 3).to(tl.int32)
        sibling = tl.where(tile >= seen, index, sibling)
        first_tile = tl.where(tile >= seen, seen, first_tile)
        out_features = tl.where(tile >= seen, features, out_features)
        seen += tl.cdiv(features, WIDTH)
    # A multiple of 16, in a form that lets the compiler see it.
    return sibling, first_tile, out_features // 16 * 16


@triton.jit
def tiles_of_sibling(siblings, sibling, NUM_SIBLINGS: tl.constexpr, WIDTH: tl.constexpr):
    """A sibling's first tile among those of all siblings, and how many it has."""
    first_tile = 0
    num_tiles = 0
    for index in range(NUM_SIBLINGS):
        count = tl.cdiv(tl.load(siblings + index * 4 + 3).to(tl.int32), WIDTH)
        first_tile += tl.where(index < sibling, count, 0)
        num_tiles = tl.where(index == sibling, count, num_tiles)
    return first_tile, num_tiles
