"""The inputs of a fused pass as tensors refreshed in place, so that a captured graph can be replayed.

Shapes: T rows of a pass, with padding.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lora_runner.layout.embedding_tables import EmbeddingTables
from lora_runner.layout.pack_layout import Layout
from lora_runner.layout.pass_tables import BlockAdapter, PassShape, PassTables
from lora_runner.layout.sequence_tables import SequenceShape, SequenceTables
from lora_runner.layout.slot_cache import SlotCache


@dataclass(frozen=True)
class PassKey:
    """What decides about the sizes of the inputs and the launches of a pass, beside its contents."""

    tables: PassShape
    num_sequences: int
    """At most so many sequences, with the one of the padding rows."""
    training: bool
    cache: SlotCache | None = None
    """Keeps the keys and values of the pass, or has those of the tokens before it."""
    continues: bool = False
    """Whether the cache has been filled by a pass before."""

    @property
    def num_rows(self) -> int:
        return self.tables.num_rows

    @property
    def kind(self) -> tuple[bool, bool, int]:
        """Passes of one kind launch the same kernels."""
        return self.training, self.continues, self.tables.rank_columns

    @property
    def recurs(self) -> bool:
        """Whether to capture such passes: not one over prompts, which also makes the cache's buffers."""
        return self.cache is None or self.continues


class PassInputs:
    """Token ids, positions and tables of one pass on a device."""

    def __init__(self, key: PassKey, device: torch.device) -> None:
        self.key = key
        self.input_ids = torch.zeros(1, key.num_rows, dtype=torch.int64, device=device)
        self.position_ids = torch.zeros_like(self.input_ids)
        self.attention_mask = torch.ones_like(self.input_ids)
        """Keeps transformers from searching the position ids for packed sequences."""
        self.tables = PassTables.empty(key.tables, device)
        self.sequences = SequenceTables.empty(SequenceShape(key.num_rows, key.num_sequences), device)
        self.embeddings = EmbeddingTables.empty(key.num_rows, device)
        """Of trained input embeddings; written by whoever has them."""

    def refresh(self, layout: Layout, adapters: Sequence[BlockAdapter | None]) -> None:
        """Write the inputs of a pass over the layout's blocks, whose adapters are given; the rest is padding.

        ValueError: more rows, blocks or sequences than the key has.
        """
        self.tables.refresh(list(zip(adapters, layout.sizes, strict=True)))
        if self.key.cache is None:
            self.sequences.refresh(layout.lengths)
        else:
            self.key.cache.prepare(self.sequences)
        _write(self.input_ids, layout.inputs["input_ids"])
        _write(self.position_ids, layout.inputs["position_ids"])

    @property
    def num_rows(self) -> int:
        return self.key.num_rows


def _write(into: Tensor, values: Tensor) -> None:
    """Write (1, n) values to (1, T), and zeros after them."""
    count = values.shape[1]
    into[:, :count].copy_(values)
    into[:, count:].zero_()
