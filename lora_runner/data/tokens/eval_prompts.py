"""Evaluation records as prompts to be answered, each with the answer that the record holds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from lora_runner.data.records.example import Example
from lora_runner.data.tokens.build_sequences import build_sequences

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True, kw_only=True)
class EvalPrompt:
    """One sequence of the evaluation set up to its first token with loss, and what follows there."""

    ids: tuple[int, ...]
    reference: str
    """The answer of the record as text: the first turn or completion with loss, without its stop token."""
    record: Mapping[str, Any] = field(repr=False)
    """The record's fields as its file has them."""
    stop_token_ids: frozenset[int] = frozenset()
    """Tokens by which answers of this record end, besides the tokenizer's end token."""


def eval_prompts(
    examples: Sequence[Example],
    tokenizer: PreTrainedTokenizerBase,
    chat_template: str | None,
    *,
    max_length: int,
    count: int,
) -> tuple[EvalPrompt, ...]:
    """The first `count` prompts of the examples, fewer where there are not so many.

    Left out are texts, which have no prompt, and prompts that alone fill `max_length`.
    """
    found: list[EvalPrompt] = []
    for sequence in build_sequences(examples, tokenizer, chat_template):
        start, end = next(((a, b) for a, b in sequence.ranges if b > a), (0, 0))
        if not 1 < start < max_length:  # what stands before a text is at most its BOS
            continue
        stop = min((place for place in sequence.stops if start <= place < end), default=end)
        found.append(
            EvalPrompt(
                ids=tuple(sequence.ids[:start]),
                reference=decode_text(tokenizer, sequence.ids[start:stop]),
                record=examples[sequence.example].fields,
                stop_token_ids=frozenset(token for token, _ in sequence.stops.values()),
            )
        )
        if len(found) == count:
            break
    return tuple(found)


def decode_text(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int]) -> str:
    """How completions and references are read: decoded, without special tokens."""
    return str(tokenizer.decode(list(ids), skip_special_tokens=True))
