"""The adapters of several seats as one tensor, for matmuls that serve all of them.

Shapes: G seats, S elements of a seat's adapters on a device, r padded rank.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Protocol

import torch
from torch import Tensor


class SeatWeights(Protocol):
    """What a packed module needs of the seat that owns a block; every weight has its gradient buffer."""

    lora_offsets: dict[str, int]  # module name -> offset of its A (r, in); B (out, r) follows
    padded_rank: int
    scaling: float
    dropout: float
    seed: int
    micro_step: int

    @property
    def lora(self) -> Mapping[torch.device, tuple[Tensor, Tensor]]:
        """All matrices on a device, flat, and their gradients."""

    @property
    def saved(self) -> Mapping[str, Tensor]:
        """Module name -> full weight (V, h), or its rows of the trained tokens (n, h)."""

    @property
    def saved_gradients(self) -> Mapping[str, Tensor]: ...


class AdapterBank:
    """The adapters of a rank group's seats on one device, a row (S,) each, in the dtype of the matmuls.

    Made once per pass, not once per layer. Seats of one shape mostly lie at equal distances in their buffers:
    then gradients are added to all of them at once, and fp32 weights are read in place.
    """

    def __init__(self, seats: Sequence[SeatWeights], device: torch.device, dtype: torch.dtype) -> None:
        weights, gradients = zip(*(seat.lora[device] for seat in seats), strict=True)
        self._offsets, self._rank = seats[0].lora_offsets, seats[0].padded_rank
        self._each_gradient = gradients
        self._gradients = _one_view(gradients)
        own = _one_view(weights) if dtype == torch.float32 else None
        if own is None:
            own = torch.empty(len(seats), len(weights[0]), dtype=dtype, device=device)
            for row, weight in zip(own, weights, strict=True):
                row.copy_(weight)
        self._weights = own

    def matrices(self, name: str, into: int, out: int) -> tuple[Tensor, Tensor]:
        """A (G, r, in) and B (G, out, r) of one layer."""
        return self._of(self._weights, name, into, out)

    def add_gradients(self, name: str, into: int, out: int, da: Tensor, db: Tensor) -> None:
        """Add gradients (G, r, in) and (G, out, r) of one layer."""
        if self._gradients is not None:
            a, b = self._of(self._gradients, name, into, out)
            a.add_(da)
            b.add_(db)
            return
        pairs = [self._of(gradient[None], name, into, out) for gradient in self._each_gradient]
        torch._foreach_add_(
            [a[0] for a, _ in pairs] + [b[0] for _, b in pairs],
            [*da.to(torch.float32), *db.to(torch.float32)],
        )

    def _of(self, rows: Tensor, name: str, into: int, out: int) -> tuple[Tensor, Tensor]:
        (count, _), distance = rows.shape, rows.stride(0)
        rank, offset = self._rank, rows.storage_offset() + self._offsets[name]
        a = rows.as_strided((count, rank, into), (distance, into, 1), offset)
        return a, rows.as_strided((count, out, rank), (distance, rank, 1), offset + rank * into)


def _one_view(rows: Sequence[Tensor]) -> Tensor | None:
    """(G, S) of rows that lie in one buffer at equal distances; None when they do not."""
    first = rows[0]
    offsets = [row.storage_offset() for row in rows]
    distance = offsets[1] - offsets[0] if len(rows) > 1 else len(first)
    storages = {row.untyped_storage()._cdata for row in rows}
    if len(storages) > 1 or distance < len(first) or any(y - x != distance for x, y in pairwise(offsets)):
        return None
    return first.as_strided((len(rows), len(first)), (distance, 1))
