"""Which rows of a pass belong to which block and adapter, as tables that kernels read on the device.

All of them are views of one buffer, so that one copy refreshes them in place: a captured CUDA graph finds the
tables of another pass where it found those of the first. Their sizes follow from a `PassShape` alone.

Shapes: T rows of a pass, B blocks, L trained layers, N row tiles.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from lora_runner.layout.device_copies import to_device

TILE_ROWS = 64
"""Rows of a tile, which never spans two blocks."""


@dataclass(frozen=True)
class PassShape:
    """The sizes of a pass's tables; passes of one shape can share a captured graph."""

    num_rows: int
    """Rows of the pass, with padding."""
    num_blocks: int
    """At most so many blocks, with the one of the padding rows."""
    num_layers: int
    """Trained layers, each with its own dropout key."""
    rank_columns: int
    """The largest padded rank that fits, a multiple of 16."""

    @property
    def num_tiles(self) -> int:
        """Row tiles: every block ends with at most one that is not full."""
        return self.num_rows // TILE_ROWS + self.num_blocks


@dataclass(frozen=True)
class BlockAdapter:
    """A block's adapters, as a pass uses them."""

    start: int
    """Element offset in the flat buffers."""
    rank: int
    """Padded rank."""
    scale: float
    """LoRA scaling, times the factor by which dropout keeps the mean."""
    drop_limit: int
    """An element is dropped when its 16 random bits are below this; 0: nothing is dropped."""
    dropout_keys: np.ndarray | None
    """(L,) int64, the first word of each layer's Philox key; None where nothing is dropped."""
    micro_step: int
    """The second word."""


class PassTables:
    """The tables of one pass on a device; attributes are views of `buffer`."""

    def __init__(self, shape: PassShape, buffer: Tensor) -> None:
        self.shape = shape
        self.buffer = buffer
        self._used = 0
        blocks, rows = shape.num_blocks, shape.num_rows
        self.adapter_starts = self._view(torch.int64, blocks)
        """(B,) element offset of each block's adapters."""
        self.dropout_keys = self._view(torch.int64, blocks, shape.num_layers)
        """(B, L)"""
        self.micro_steps = self._view(torch.int64, blocks)
        """(B,)"""
        self.row_tiles = self._view(torch.int32, shape.num_tiles, 2)
        """(N, 2): block and first row; block -1 where there is nothing to do."""
        self.scales = self._view(torch.float32, blocks)
        """(B,)"""
        self.ranks = self._view(torch.int32, blocks)
        """(B,) padded ranks; 0 without an adapter."""
        self.drop_limits = self._view(torch.int32, blocks)
        """(B,)"""
        self.block_starts = self._view(torch.int32, blocks + 1)
        """(B + 1,) first row of each block; blocks that are not used are empty and at the end."""
        self.row_blocks = self._view(torch.int32, rows)
        """(T,) block of each row, ascending."""

    def _view(self, dtype: torch.dtype, *shape: int) -> Tensor:
        size = int(np.prod(shape)) * dtype.itemsize
        start, self._used = self._used, self._used + _aligned(size)
        words = self.buffer[start // 8 : self._used // 8]
        return words.view(dtype)[: int(np.prod(shape))].view(shape)

    @classmethod
    def empty(cls, shape: PassShape, device: torch.device) -> PassTables:
        """Tables without contents."""
        return cls(shape, torch.zeros(_num_words(shape), dtype=torch.int64, device=device))

    @classmethod
    def of(
        cls,
        shape: PassShape,
        blocks: Sequence[tuple[BlockAdapter | None, int]],
        device: torch.device,
    ) -> PassTables:
        """The tables of these blocks, each an adapter (None: the plain base) and its number of rows.

        Rows beyond theirs are padding: one more block without adapter. ValueError: more blocks or rows than
        the shape has, or a larger rank.
        """
        tables = cls.empty(shape, device)
        tables.refresh(blocks)
        return tables

    def refresh(self, blocks: Sequence[tuple[BlockAdapter | None, int]]) -> None:
        """Write the tables of other blocks in place; arguments and errors as in `of`."""
        host = PassTables.empty(self.shape, torch.device("cpu"))
        host._fill(blocks)
        if self.buffer.device.type == "cpu":
            self.buffer.copy_(host.buffer)
        else:
            self.buffer.copy_(to_device(host.buffer, self.buffer.device))

    def _fill(self, blocks: Sequence[tuple[BlockAdapter | None, int]]) -> None:
        shape = self.shape
        used = sum(size for _, size in blocks)
        if used > shape.num_rows:
            raise ValueError(f"a pass of {shape.num_rows} rows cannot hold {used}")
        if used < shape.num_rows:
            blocks = [*blocks, (None, shape.num_rows - used)]
        if len(blocks) > shape.num_blocks:
            raise ValueError(f"a pass of {shape.num_blocks} blocks cannot hold {len(blocks)}")
        sizes = np.array([size for _, size in blocks])
        starts = np.full(shape.num_blocks + 1, shape.num_rows)
        starts[: len(blocks) + 1] = np.concatenate([[0], sizes.cumsum()])
        self.block_starts.numpy()[:] = starts
        self.row_blocks.numpy()[:] = np.repeat(np.arange(len(blocks)), sizes)
        tiles = self.row_tiles.numpy()
        tiles[:] = -1
        found = [
            (index, first)
            for index, (adapter, size) in enumerate(blocks)
            if adapter is not None
            for first in range(starts[index], starts[index] + size, TILE_ROWS)
        ]
        if found:
            tiles[: len(found)] = found
        owned = [(index, adapter) for index, (adapter, _) in enumerate(blocks) if adapter is not None]
        for index, adapter in owned:
            if adapter.rank > shape.rank_columns:
                raise ValueError(f"a pass of ranks up to {shape.rank_columns} cannot hold {adapter.rank}")
            if adapter.dropout_keys is not None:
                self.dropout_keys.numpy()[index] = adapter.dropout_keys
        if owned:
            indices = [index for index, _ in owned]
            self.adapter_starts.numpy()[indices] = [adapter.start for _, adapter in owned]
            self.ranks.numpy()[indices] = [adapter.rank for _, adapter in owned]
            self.scales.numpy()[indices] = [adapter.scale for _, adapter in owned]
            self.drop_limits.numpy()[indices] = [adapter.drop_limit for _, adapter in owned]
            self.micro_steps.numpy()[indices] = [adapter.micro_step for _, adapter in owned]


def _num_words(shape: PassShape) -> int:
    blocks = shape.num_blocks
    in_64_bits = (blocks, blocks * shape.num_layers, blocks)
    in_32_bits = (2 * shape.num_tiles, blocks, blocks, blocks, blocks + 1, shape.num_rows)
    sizes = (*(8 * count for count in in_64_bits), *(4 * count for count in in_32_bits))
    return sum(map(_aligned, sizes)) // 8


def _aligned(size: int) -> int:
    """Bytes of a table that ends where 16 do: Triton compiles a kernel again for another alignment."""
    return -(-size // 16) * 16
