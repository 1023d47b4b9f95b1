"""The evaluation loss of each record: what the mean over an evaluation set rests on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from lora_runner.layout.device_copies import to_device
from lora_runner.layout.pack_layout import Block


@dataclass(frozen=True)
class Evaluation:
    """One seat on the evaluation set."""

    mean: float
    """Nats per target token over the whole set."""
    sums: tuple[float, ...]
    """Nats of each record, summed over its target tokens, in the order of the blocks."""


class RecordSums:
    """Adds up the losses of a block's targets by record.

    Every seat is summed on its own, in a shape that only the block decides, so that its sums have the same
    bits in any pack.
    """

    def __init__(self, block: Block, device: torch.device) -> None:
        counts = block.targets_per_sequence
        self._shape = (len(counts), max(1, int(counts.max(initial=0))))
        firsts = self._shape[1] * np.arange(len(counts)) - (np.cumsum(counts) - counts)
        places = np.arange(int(counts.sum())) + np.repeat(firsts, counts)
        self._places = to_device(torch.from_numpy(places), device)

    def of(self, losses: Tensor) -> Tensor:
        """The sums (records,) of one seat's `losses` (n,), in float64."""
        grid = torch.zeros(self._shape[0] * self._shape[1], dtype=torch.float64, device=losses.device)
        return grid.index_copy_(0, self._places, losses.double()).view(self._shape).sum(1)


def evaluations(means: Sequence[float], sums: Sequence[Sequence[Tensor]]) -> list[Evaluation]:
    """One evaluation for each seat, from its mean and its blocks' sums."""
    return [
        Evaluation(mean, tuple(torch.cat([*own]).tolist())) for mean, own in zip(means, sums, strict=True)
    ]
