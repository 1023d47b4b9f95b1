"""Evaluation records as prompts for a metric, each with its reference answer."""

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
    """One evaluation sequence up to its first token with loss, and the answer that follows."""

    ids: tuple[int, ...]
    reference: str
    """The record's answer as text: the first turn or completion with loss, without its stop token."""
    record: Mapping[str, Any] = field(repr=False)
    """The record's fields as in the file."""
    stop_token_ids: frozenset[int] = frozenset()
    """Stop tokens of this record's answers, besides eos_token."""


def eval_prompts(
    examples: Sequence[Example],
    tokenizer: PreTrainedTokenizerBase,
    chat_template: str | None,
    *,
    max_length: int,
    count: int,
) -> tuple[EvalPrompt, ...]:
    """Return the first `count` prompts of the examples, or fewer.

    Texts, which have no prompt, and prompts that fill `max_length` are left out.
    """
    found: list[EvalPrompt] = []
    for sequence in build_sequences(examples, tokenizer, chat_template):
        start, end = next(((a, b) for a, b in sequence.ranges if b > a), (0, 0))
        if not 1 < start < max_length:  # a text is preceded by BOS at most
            continue
        stop = min((position for position in sequence.stops if start <= position < end), default=end)
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
    """Decode a completion or reference without special tokens."""
    return str(tokenizer.decode(list(ids), skip_special_tokens=True))
