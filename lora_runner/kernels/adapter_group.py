"""The adapters of sibling layers: linear layers that read the same input, such as q, k and v."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class AdapterGroup:
    """Siblings with an adapter each; their outputs are columns of one (T, sum of out) tensor."""

    in_features: int
    out_features: tuple[int, ...]
    siblings: Tensor
    """(S, 4) int64 on the device, a row per sibling: elements per rank of all adapters before its own in a
    seat's segment, its index among the trained layers, its first output column, its out features."""

    @classmethod
    def of(
        cls,
        in_features: int,
        out_features: Sequence[int],
        *,
        before: Sequence[int],
        layers: Sequence[int],
        device: torch.device,
    ) -> AdapterGroup:
        """From one entry per sibling; `before` and `layers` are the first two columns of `siblings`."""
        columns = [0, *accumulate(out_features)][:-1]
        rows = list(zip(before, layers, columns, out_features, strict=True))
        return cls(in_features, tuple(out_features), torch.tensor(rows, dtype=torch.int64).to(device))

    @property
    def num_siblings(self) -> int:
        return len(self.out_features)

    @property
    def num_outputs(self) -> int:
        """Columns of all siblings' outputs."""
        return sum(self.out_features)
