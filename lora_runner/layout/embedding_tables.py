"""Which rows of a pass read a seat's own embeddings, as tables that kernels read on the device.

All of them are views of one buffer, refreshed in place by one copy (see `pass_tables.py`).

Shapes: T rows of a pass.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from lora_runner.layout.device_copies import to_device

NONE = -1


@dataclass(frozen=True)
class OwnRows:
    """The embeddings that a seat trains: a whole matrix, or its rows of some tokens."""

    start: int
    """Element offset in the flat buffers."""
    token_ids: tuple[int, ...] = ()
    """Sorted ids of the only tokens that have a row; empty: all have one."""

    def places(self, ids: np.ndarray, width: int) -> np.ndarray:
        """Element offset of each id's row, which has `width` elements; NONE for one without."""
        if not self.token_ids:
            return self.start + ids * width
        known = np.asarray(self.token_ids)
        found = np.searchsorted(known, ids).clip(max=len(known) - 1)
        return np.where(known[found] == ids, self.start + found * width, NONE)


class EmbeddingTables:
    """The tables of one pass on a device; attributes are views of `buffer`."""

    def __init__(self, num_rows: int, buffer: Tensor) -> None:
        self.num_rows = num_rows
        self.buffer = buffer
        size = _aligned(num_rows)
        self.row_places, self.group_places = buffer[: 2 * size].view(2, size)[:, :num_rows]
        """(T,) int64 each: element offset of the row that a token reads, and that a group adds to."""
        ints = buffer[2 * size :].view(torch.int32)
        self.order = ints[:num_rows]
        """(T,) int32: the tokens with a gradient, those of a group together in the order of their rows."""
        self.group_starts = ints[size : size + num_rows + 1]
        """(T + 1,) int32: where each group starts in `order`; groups that are not used are empty."""

    @classmethod
    def empty(cls, num_rows: int, device: torch.device) -> EmbeddingTables:
        """Tables of a pass whose rows all read the base's embeddings."""
        tables = cls(num_rows, torch.zeros(3 * _aligned(num_rows) + 1, dtype=torch.int64, device=device))
        tables.row_places.fill_(NONE)
        return tables

    def refresh(self, row_places: np.ndarray, has_gradient: np.ndarray) -> None:
        """Write the tables of another pass in place.

        `row_places` (n,) is what its first n rows read, NONE for the base's; the others read the base's.
        `has_gradient` (n,) leaves tokens out whose rows are not trained. ValueError if n is more than T.
        """
        if len(row_places) > self.num_rows:
            raise ValueError(f"a pass of {self.num_rows} rows cannot hold {len(row_places)}")
        host = EmbeddingTables.empty(self.num_rows, torch.device("cpu"))
        host._fill(row_places, has_gradient)
        if self.buffer.device.type == "cpu":
            self.buffer.copy_(host.buffer)
        else:
            self.buffer.copy_(to_device(host.buffer, self.buffer.device))

    def _fill(self, row_places: np.ndarray, has_gradient: np.ndarray) -> None:
        self.row_places.numpy()[: len(row_places)] = row_places
        rows = np.flatnonzero((row_places != NONE) & has_gradient)
        rows = rows[np.argsort(row_places[rows], kind="stable")]
        places, firsts = np.unique(row_places[rows], return_index=True)
        self.order.numpy()[: len(rows)] = rows
        self.group_places.numpy()[: len(places)] = places
        starts = self.group_starts.numpy()
        starts[:] = len(rows)
        starts[: len(places)] = firsts


def _aligned(count: int) -> int:
    """Entries of a table that ends where 16 bytes do: Triton compiles again for another alignment."""
    return -(-count // 4) * 4
