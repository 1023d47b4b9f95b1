"""How the micro-batches of several seats lie in one forward pass.

A block is one seat's micro-batch, padded to its own longest sequence: b sequences of S tokens. Two layouts:

- end to end: all blocks in one row of T = Σ b·S tokens; attention sees each block in its own (b, S) shape, so
  no seat is padded to a neighbour's length, and every token of a block is computed as it would be alone;
- rectangular: one sequence per row, padded on the right to the longest of the pack; for models whose
  attention does not go through transformers' attention interface, or that mix tokens otherwise (state spaces,
  convolutions).

Padding stands on the right in both and attention is causal, so no real token ever sees a padded one.

Shapes: b sequences of a block, S its length, T tokens of the pack, H heads, D head size.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

LayoutKind = Literal["end_to_end", "rectangular"]
PACK_ATTENTION = "pack"
"""Name under which the end-to-end attention is registered with transformers."""


@dataclass(frozen=True)
class Block:
    """One seat's micro-batch: token ids and the positions whose next token is predicted."""

    input_ids: Tensor  # (b, S)
    predict: Tensor  # (b, S) bool
    target_ids: Tensor  # (n,) the next tokens at the True positions, row by row

    @classmethod
    def from_labels(cls, input_ids: Tensor, labels: Tensor) -> Block:
        """Predict every token whose label is not -100, each from the position before it."""
        predict = torch.zeros_like(labels, dtype=torch.bool)
        predict[:, :-1] = labels[:, 1:] != -100
        return cls(input_ids, predict, labels[:, 1:][predict[:, :-1]])

    @classmethod
    def next_token(cls, input_ids: Tensor, lengths: Tensor) -> Block:
        """Predict only the token after each sequence's last real one, as sampling does."""
        predict = torch.arange(input_ids.shape[1], device=input_ids.device)[None, :] == (lengths - 1)[:, None]
        return cls(input_ids, predict, torch.full_like(lengths, -100))


@dataclass(frozen=True)
class Span:
    """Rows [start, stop) of a flattened activation that belong to one block."""

    block: int
    start: int
    stop: int


@dataclass(frozen=True)
class Layout:
    """The inputs of one forward pass, and where each block's tokens and predictions are in it."""

    kind: LayoutKind
    inputs: dict[str, Tensor]
    shapes: tuple[tuple[int, int], ...]  # (b, S) a block
    token_spans: tuple[Span, ...]
    """Rows of each block in an activation of all tokens."""
    target_spans: tuple[Span, ...]
    """Rows of each block among the predicting positions."""
    target_rows: Tensor  # (n,) rows of the predicting positions among all tokens
    num_padded_tokens: int

    @property
    def num_tokens(self) -> int:
        return self.token_spans[-1].stop


def lay_out(blocks: Sequence[Block], kind: LayoutKind, pad_token_id: int) -> Layout:
    """Arrange `blocks` for one forward pass."""
    width = max(block.input_ids.shape[1] for block in blocks)
    padded = [
        _padded(block, width, pad_token_id) if kind == "rectangular" else (block.input_ids, block.predict)
        for block in blocks
    ]
    spans, targets, rows, start, num_targets = [], [], [], 0, 0
    for index, (ids, predict) in enumerate(padded):
        here = predict.flatten().nonzero().squeeze(1)
        spans.append(Span(index, start, start + ids.numel()))
        targets.append(Span(index, num_targets, num_targets + len(here)))
        rows.append(here + start)
        start, num_targets = start + ids.numel(), num_targets + len(here)

    if kind == "rectangular":
        inputs = {"input_ids": torch.cat([ids for ids, _ in padded])}
    else:
        ids = torch.cat([ids.flatten() for ids, _ in padded])[None]
        positions = [torch.arange(i.shape[1], device=i.device).repeat(i.shape[0]) for i, _ in padded]
        # The mask of ones only tells transformers not to search the position ids for packed sequences.
        inputs = {
            "input_ids": ids,
            "position_ids": torch.cat(positions)[None],
            "attention_mask": torch.ones_like(ids),
        }
    return Layout(
        kind=kind,
        inputs=inputs,
        shapes=tuple((ids.shape[0], ids.shape[1]) for ids, _ in padded),
        token_spans=tuple(spans),
        target_spans=tuple(targets),
        target_rows=torch.cat(rows),
        num_padded_tokens=sum(i.numel() for i, _ in padded) - sum(b.input_ids.numel() for b in blocks),
    )


def _padded(block: Block, width: int, pad_token_id: int) -> tuple[Tensor, Tensor]:
    missing = width - block.input_ids.shape[1]
    ids = nn.functional.pad(block.input_ids, (0, missing), value=pad_token_id)
    return ids, nn.functional.pad(block.predict, (0, missing), value=False)


# --- attention of the end-to-end layout, registered with transformers ---------------------------------------


@dataclass(frozen=True)
class PackMask:
    """What stands where transformers expects an attention mask: each block's place, shape and own mask."""

    inner: str
    """The attention implementation each block is computed with: sdpa or eager."""
    shapes: tuple[tuple[int, int], ...]
    masks: tuple[Tensor | None, ...]


_current: tuple[Layout, str] | None = None


@contextmanager
def attention_over(layout: Layout, inner: str) -> Iterator[None]:
    """Make `layout` the one that the registered mask function describes, for the forward pass inside."""
    global _current
    before, _current = _current, (layout, inner)
    try:
        yield
    finally:
        _current = before


def _pack_mask(*, mask_function: Callable[..., Any], **arguments: Any) -> PackMask:
    """Build one mask per block with transformers' own mask function (causal, sliding window, chunked)."""
    if _current is None:
        raise RuntimeError("a model with attention implementation 'pack' was called outside of its pack")
    layout, inner = _current
    make = ALL_MASK_ATTENTION_FUNCTIONS[inner]
    masks: dict[int, Tensor | None] = {}
    for _, length in layout.shapes:
        if length not in masks:
            masks[length] = make(
                **{
                    **arguments,
                    "mask_function": mask_function,
                    "batch_size": 1,
                    "q_length": length,
                    "kv_length": length,
                    "q_offset": 0,
                    "kv_offset": 0,
                    "attention_mask": None,
                }
            )
    return PackMask(inner, layout.shapes, tuple(masks[s] for _, s in layout.shapes))


def _pack_attention(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: PackMask, **arguments: Any
) -> tuple[Tensor, None]:
    """Attend within each block in its own (b, S) shape; query, key, value (1, H, T, D) -> (1, T, H, D)."""
    attend = ALL_ATTENTION_FUNCTIONS.get_interface(
        attention_mask.inner, getattr(sys.modules[type(module).__module__], "eager_attention_forward", None)
    )
    sizes = [b * s for b, s in attention_mask.shapes]
    parts = zip(*(x[0].split(sizes, dim=1) for x in (query, key, value)), strict=True)
    outputs = []
    for (b, s), mask, part in zip(attention_mask.shapes, attention_mask.masks, parts, strict=True):
        q, k, v = (x.unflatten(1, (b, s)).transpose(0, 1) for x in part)  # (b, H, S, D)
        out, _ = attend(module, q, k, v, mask, **arguments)  # (b, S, H, D)
        outputs.append(out.flatten(0, 1))
    return torch.cat(outputs)[None], None


AttentionInterface.register(PACK_ATTENTION, _pack_attention)
AttentionMaskInterface.register(PACK_ATTENTION, _pack_mask)
