"""What the fused modules need to know of the current pass."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from lora_runner.fused.embeddings import EmbeddingPass
from lora_runner.layers.adapter_bank import SeatWeights
from lora_runner.layers.dropout import LEVELS, mix, threshold
from lora_runner.layout.pass_tables import BlockAdapter, PassTables


@dataclass(frozen=True)
class FusedPass:
    """Tables of the pass and the flat buffers of the seats, all on one device."""

    tables: PassTables
    parameters: Tensor
    """The flat fp32 buffer in which all seats' adapters lie."""
    gradients: Tensor
    """That of their gradients, with the same offsets."""
    embeddings: EmbeddingPass | None = None
    """None where no input embeddings are trained."""

    @property
    def rank_columns(self) -> int:
        """Columns that a sibling has in a shrunk activation."""
        return self.tables.shape.rank_columns


def block_adapter(
    seat: SeatWeights | None, device: torch.device, num_layers: int, *, training: bool
) -> BlockAdapter | None:
    """A seat's adapters as a pass uses them; None for the plain base. Dropout acts in training only."""
    if seat is None:
        return None
    limit = threshold(seat.dropout) if training else 0
    return BlockAdapter(
        start=int(seat.lora[device][0].storage_offset()),
        rank=seat.padded_rank,
        scale=seat.scaling * (LEVELS / (LEVELS - limit)),
        drop_limit=limit,
        dropout_keys=_dropout_keys(seat.seed, num_layers) if limit else None,
        micro_step=seat.micro_step,
    )


@lru_cache(maxsize=256)
def _dropout_keys(seed: int, num_layers: int) -> np.ndarray:
    """First words of `dropout.dropout_key` for every trained layer, (L,) int64."""
    return np.array([mix(seed, layer) for layer in range(num_layers)], dtype=np.int64)
