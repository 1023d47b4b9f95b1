"""A decoder in miniature whose layers, as a pack's, read tables and add their gradients to a flat buffer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lora_runner.graphs.buckets import padded_count, padded_rank, padded_rows
from lora_runner.layout.pass_tables import BlockAdapter, PassShape, PassTables

VOCABULARY, HIDDEN, LAYERS, SLOT = 50, 16, 3, 64
"""`SLOT`: elements of the flat buffer that belong to one seat."""


@dataclass(frozen=True)
class Key:
    """Sizes of a pass."""

    shape: PassShape
    training: bool
    recurs: bool = True

    @property
    def kind(self) -> tuple[bool, int]:
        return self.training, self.shape.rank_columns

    @property
    def num_rows(self) -> int:
        return self.shape.num_rows


@dataclass(frozen=True)
class Contents:
    """The blocks of one pass, each an adapter and token ids."""

    blocks: tuple[tuple[BlockAdapter | None, tuple[int, ...]], ...]

    @property
    def sizes(self) -> list[tuple[BlockAdapter | None, int]]:
        return [(adapter, len(ids)) for adapter, ids in self.blocks]

    @property
    def num_rows(self) -> int:
        return sum(len(ids) for _, ids in self.blocks)

    def key(self, *, training: bool) -> Key:
        ranks = [adapter.rank for adapter, _ in self.blocks if adapter is not None]
        shape = PassShape(
            num_rows=padded_rows(self.num_rows),
            num_blocks=padded_count(len(self.blocks)),
            num_layers=LAYERS,
            rank_columns=padded_rank(max([0, *ranks])),
        )
        return Key(shape, training)

    def ids(self, num_rows: int) -> Tensor:
        ids = [token for _, ids in self.blocks for token in ids]
        return torch.tensor(ids + [0] * (num_rows - len(ids)))


class Inputs:
    """A pass's tables and token ids."""

    def __init__(self, key: Key, device: torch.device) -> None:
        self.training = key.training
        self.tables = PassTables.empty(key.shape, device)
        self.input_ids = torch.zeros(key.shape.num_rows, dtype=torch.int64, device=device)
        self.num_rows = 0
        """A number of Python's, not a tensor: a decoder that reads it gives a graph of one number."""

    def write(self, contents: Contents) -> None:
        self.num_rows = contents.num_rows
        self.tables.refresh(contents.sizes)
        self.input_ids.copy_(contents.ids(len(self.input_ids)))


class Toy:
    """Embedding, layers with a factor per seat, and a norm; `parameters` and `gradients` are flat buffers."""

    def __init__(self, device: torch.device, num_seats: int = 8) -> None:
        self.device = device
        generator = torch.Generator().manual_seed(0)
        self.embedding, self.mix = (
            torch.randn(n, HIDDEN, generator=generator).to(device) for n in (VOCABULARY, HIDDEN)
        )
        self.parameters = torch.randn(num_seats * SLOT, generator=generator).to(device)
        self.gradients = torch.zeros_like(self.parameters)

    def new_inputs(self, key: Key) -> Inputs:
        return Inputs(key, self.device)

    def compute(self, inputs: Inputs) -> Tensor:
        """Hidden states (T, HIDDEN)."""
        anchor = torch.zeros((), device=self.device, requires_grad=True) if inputs.training else None
        x = self.embedding[inputs.input_ids]
        for layer in range(LAYERS):
            x = x + _Layer.apply(x, anchor, self, inputs.tables, layer)
            x = x / x.square().mean(-1, keepdim=True).add(1e-6).sqrt()
        return x

    def state(self) -> list[Tensor]:
        """What a capture must not change."""
        return [self.parameters, self.gradients]


class _Layer(torch.autograd.Function):
    """x @ mix, times (1 + scale * weight) of the row's seat."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, anchor: Tensor | None, toy: Toy, tables: PassTables, layer: int
    ) -> Tensor:
        rows = tables.row_blocks.long()
        index = tables.adapter_starts[rows] + layer
        scale = torch.where(tables.ranks[rows] > 0, tables.scales[rows], 0.0)
        mixed = torch.tanh(x @ toy.mix)
        factor = 1 + scale * toy.parameters[index]
        ctx.save_for_backward(mixed, factor, index, scale)
        ctx.toy = toy
        return mixed * factor[:, None]

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        mixed, factor, index, scale = ctx.saved_tensors
        toy, grad = ctx.toy, grads[0]
        each = (grad * mixed).sum(-1) * scale
        # One sum per seat, in the order of its rows; rows without a seat add nothing.
        owned = torch.where(scale != 0, each, 0.0)
        toy.gradients.index_add_(0, index, owned)
        through = grad * factor[:, None] * (1 - mixed.square())
        return through @ toy.mix.t(), None, None, None, None


def drawn(rng: np.random.Generator, num_blocks: int, most_rows: int) -> Contents:
    """Blocks of random seats, ranks, lengths and tokens; one of them may be the plain base."""
    seats = rng.permutation(8)[:num_blocks]
    blocks = []
    for seat in seats:
        ids = rng.integers(VOCABULARY, size=rng.integers(1, most_rows // num_blocks + 1)).tolist()
        rank = int(rng.choice([8, 16, 40]))
        adapter = BlockAdapter(int(seat) * SLOT, rank, float(rng.uniform(0.5, 2)), 0, None, 0)
        blocks.append((adapter if rng.random() < 0.8 else None, tuple(ids)))
    return Contents(tuple(blocks))
