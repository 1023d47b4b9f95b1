"""How the micro-batches of several seats are arranged in one forward pass.

A block is one seat's micro-batch: its sequences end to end, without padding. Two layouts:

- end to end: all blocks in one row of T tokens. Everything but attention works token by token or block by
  block; attention takes the sequences apart again (`layers/attention.py`);
- rectangular: one sequence per row, padded on the right to the block's own width; for models whose attention
  does not use transformers' attention interface, or that mix tokens in other ways (state spaces,
  convolutions). Attention is causal, so no real token sees padding. Only blocks of one width share a pass: a
  width set by a neighbour would change a trial's matmuls and dropout masks.

Shapes: T rows of an activation, n predicting positions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from lora_runner.layout.device_copies import to_device

LayoutKind = Literal["end_to_end", "rectangular"]
LENGTH_MULTIPLE = 8
"""Lengths are padded to multiples of this; beyond 128 tokens, to sixteenths of the next power of two."""


def padded_length(length: int) -> int:
    """The length to which a sequence of `length` tokens is padded; depends on that length alone."""
    step = max(LENGTH_MULTIPLE, 1 << max(0, (length - 1).bit_length() - 4))
    return -(-length // step) * step


@dataclass(frozen=True)
class Block:
    """One seat's micro-batch: token ids and the positions whose next token is predicted."""

    input_ids: Tensor  # (t,) all sequences end to end
    lengths: tuple[int, ...]
    """Tokens of each sequence."""
    target_rows: Tensor  # (n,) rows of `input_ids` from which the next token is predicted
    target_ids: Tensor  # (n,) those next tokens
    distinct_ids: Tensor  # (u,) sorted; a trained embedding has gradients for these rows
    distinct_indices: Tensor  # (t,) `input_ids` as indices into `distinct_ids`
    host_ids: np.ndarray  # (t,) `input_ids` on the host, where the tables of a pass are made
    host_rows: np.ndarray  # (n,) `target_rows` on the host

    @classmethod
    def of(cls, sequences: Sequence[tuple[Sequence[int], Sequence[int]]], device: torch.device) -> Block:
        """From (token ids, labels) per sequence; a label but -100 is predicted from the token before."""
        ids = torch.tensor([token for sequence, _ in sequences for token in sequence])
        labels = torch.tensor([label for _, given in sequences for label in given])
        lengths = tuple(len(sequence) for sequence, _ in sequences)
        predicts = torch.zeros(len(ids), dtype=torch.bool)
        predicts[:-1] = labels[1:] != -100
        predicts[torch.tensor(lengths).cumsum(0) - 1] = (
            False  # the next row is another sequence's first token
        )
        rows = predicts.nonzero().squeeze(1)
        return cls._on(device, ids, lengths, rows, labels[rows + 1] if len(rows) else rows)

    @classmethod
    def next_token(cls, sequences: Sequence[Sequence[int]], device: torch.device) -> Block:
        """Predict only the token after each sequence's end, as in generation."""
        return cls.after([(sequence, [-100]) for sequence in sequences], device)

    @classmethod
    def after(cls, pairs: Sequence[tuple[Sequence[int], Sequence[int]]], device: torch.device) -> Block:
        """From (context, continuation) per sequence, neither empty: predict every continuation token.

        The last of them is no input.
        """
        sequences = [[*context, *continuation][:-1] for context, continuation in pairs]
        lengths = tuple(map(len, sequences))
        ends = np.cumsum(lengths)
        rows = [
            row
            for end, (_, continuation) in zip(ends.tolist(), pairs, strict=True)
            for row in range(end - len(continuation), end)
        ]
        ids, targets = (
            torch.tensor([token for part in parts for token in part])
            for parts in (sequences, [continuation for _, continuation in pairs])
        )
        return cls._on(device, ids, lengths, torch.tensor(rows), targets)

    @classmethod
    def _on(
        cls, device: torch.device, ids: Tensor, lengths: tuple[int, ...], rows: Tensor, targets: Tensor
    ) -> Block:
        # On the host, where `unique` needs no synchronisation with a device.
        distinct, indices = ids.unique(return_inverse=True)
        host_ids, host_rows = ids.numpy(), rows.numpy()
        ids, rows, targets, distinct, indices = (
            to_device(tensor, device) for tensor in (ids, rows, targets, distinct, indices)
        )
        return cls(ids, lengths, rows, targets, distinct, indices, host_ids, host_rows)

    @property
    def num_tokens(self) -> int:
        return sum(self.lengths)

    @property
    def num_targets(self) -> int:
        return len(self.target_ids)

    @property
    def targets_per_sequence(self) -> np.ndarray:
        """How many of the targets (sequences,) each sequence has."""
        ends = np.cumsum(self.lengths)
        return np.bincount(np.searchsorted(ends, self.host_rows, side="right"), minlength=len(ends))


@dataclass(frozen=True)
class Layout:
    """The inputs of one forward pass, and the rows of each block's tokens and predictions."""

    kind: LayoutKind
    blocks: tuple[Block, ...]
    width: int
    """Rows of every sequence in the rectangular layout."""
    positions: tuple[int, ...] | None = None
    """Position of each sequence's first token; not 0 when the tokens before it are in a cache."""

    @cached_property
    def inputs(self) -> dict[str, Tensor]:
        """Keyword arguments of the model: one row of all tokens, or one row per sequence."""
        ids = torch.cat([block.input_ids for block in self.blocks])
        if self.kind == "rectangular":
            grid = torch.zeros(len(self.lengths) * self.width, dtype=ids.dtype, device=ids.device)
            return {"input_ids": grid.index_copy(0, self.token_rows, ids).view(-1, self.width)}
        firsts = self.positions or (0,) * len(self.lengths)
        positions = torch.from_numpy(
            np.concatenate([np.arange(n) + first for n, first in zip(self.lengths, firsts, strict=True)])
        )
        # The mask of ones keeps transformers from searching the position ids for packed sequences.
        return {
            "input_ids": ids[None],
            "position_ids": to_device(positions, ids.device)[None],
            "attention_mask": torch.ones_like(ids)[None],
        }

    @cached_property
    def lengths(self) -> tuple[int, ...]:
        """Tokens of every sequence of the pack."""
        return tuple(length for block in self.blocks for length in block.lengths)

    @cached_property
    def sizes(self) -> tuple[int, ...]:
        """Rows of each block in an activation of all tokens."""
        if self.kind == "rectangular":
            return tuple(len(block.lengths) * self.width for block in self.blocks)
        return tuple(block.num_tokens for block in self.blocks)

    @cached_property
    def token_rows(self) -> Tensor:
        """Rows (T,) of the blocks' tokens among all rows."""
        step = self.width if self.kind == "rectangular" else 0
        rows, start = [], 0
        for length in self.lengths:
            rows.append(np.arange(start, start + length))
            start += step or length
        found = torch.from_numpy(np.concatenate(rows))
        return to_device(found, self.blocks[0].input_ids.device)

    @cached_property
    def distinct_indices(self) -> tuple[Tensor, ...]:
        """Each block's `distinct_indices` for all its rows; padded rows read the first entry."""
        if self.kind == "end_to_end":
            return tuple(block.distinct_indices for block in self.blocks)
        return tuple(_grid(block.distinct_indices, block.lengths, self.width) for block in self.blocks)

    @cached_property
    def target_rows(self) -> tuple[Tensor, ...]:
        """Rows of each block's predicting positions among all rows."""
        found, token, row = [], 0, 0
        for block, size in zip(self.blocks, self.sizes, strict=True):
            if self.kind == "rectangular":
                found.append(self.token_rows[token + block.target_rows])
            else:
                found.append(block.target_rows + row)
            token, row = token + block.num_tokens, row + size
        return tuple(found)

    @property
    def num_rows(self) -> int:
        return sum(self.sizes)

    @property
    def num_padded(self) -> int:
        """Rows that hold no token."""
        return self.num_rows - sum(self.lengths)


def plan_layouts(
    blocks: Sequence[Block], kind: LayoutKind, *, max_positions: int | None = None
) -> list[tuple[list[int], Layout]]:
    """Arrange `blocks` in few forward passes: the indices of each pass's blocks, and its layout.

    No sequence is padded beyond `max_positions`, the model's own limit.
    """
    if kind == "end_to_end":
        return [(list(range(len(blocks))), Layout(kind, tuple(blocks), 0))]
    by_width: dict[int, list[int]] = {}
    for index, block in enumerate(blocks):
        longest = max(block.lengths)
        width = padded_length(longest)
        if max_positions is not None:
            width = min(width, max(longest, max_positions))
        by_width.setdefault(width, []).append(index)
    return [
        (indices, Layout(kind, tuple(blocks[i] for i in indices), width))
        for width, indices in sorted(by_width.items())
    ]


def _grid(values: Tensor, lengths: tuple[int, ...], width: int) -> Tensor:
    parts = values.split(lengths)
    return torch.cat([torch.nn.functional.pad(part, (0, width - len(part))) for part in parts])
