"""Examples -> token ids and labels."""

from __future__ import annotations

import hashlib
import sys
from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from lora_runner.data.formats import Example
from lora_runner.data.sequences import sequences

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

IGNORED = -100
"""Label of a token without loss."""


@dataclass(frozen=True, kw_only=True)
class TokenizedExample:
    """One sequence; `labels[i]` is `input_ids[i]` or -100, not shifted.

    `labels[0]` is always -100: nothing stands before the first token to predict it from, so the number of
    labels is the number of predictions.
    """

    input_ids: Sequence[
        int
    ]  # (length,), int32 arrays when made by `tokenise`: half the memory of Python ints or less
    labels: Sequence[int]  # (length,)


@dataclass(frozen=True, kw_only=True)
class TokenizedSet:
    """Tokenised examples with what was lost on the way; build it with `of`."""

    examples: tuple[TokenizedExample, ...] = field(repr=False)
    source: str
    """What the user named: path or hub id, and the split or share taken of it."""
    num_tokens: int
    num_target_tokens: int
    """Tokens with loss, the denominator of a token-weighted mean."""
    num_dropped: int
    """Examples left out because truncation (or their content) left no token with loss."""
    num_truncated: int
    """Examples that lost their end to `max_length`, dropped ones included."""
    num_duplicates: int
    """Records left out because the evaluation set holds the same one, or because it holds it once already."""
    digest: str
    """Sha256 of all ids and labels in order: equal digests, equal sets."""

    @classmethod
    def of(
        cls,
        examples: Iterable[TokenizedExample],
        *,
        source: str,
        num_dropped: int = 0,
        num_truncated: int = 0,
        num_duplicates: int = 0,
    ) -> TokenizedSet:
        """Count and digest the examples."""
        kept = tuple(examples)
        return cls(
            examples=kept,
            source=source,
            num_tokens=sum(len(example.input_ids) for example in kept),
            num_target_tokens=sum(num_targets(example) for example in kept),
            num_dropped=num_dropped,
            num_truncated=num_truncated,
            num_duplicates=num_duplicates,
            digest=_digest(kept),
        )

    def __len__(self) -> int:
        return len(self.examples)


def num_targets(example: TokenizedExample) -> int:
    """Return the number of tokens with loss."""
    return len(example.labels) - example.labels.count(IGNORED)


def tokenise(
    examples: Sequence[Example],
    tokenizer: PreTrainedTokenizerBase,
    *,
    source: str,
    max_length: int,
    completion_only: bool = True,
    chat_template: str | None = None,
    num_duplicates: int = 0,
) -> TokenizedSet:
    """Tokenise examples, keep the first `max_length` tokens of each, drop those without a token to learn.

    Conversations follow the chat template to the letter: BOS and end-of-turn tokens are those it prints.
    Prompts, completions and texts begin as the tokenizer begins a text (BOS or not, never twice) and end with
    EOS. `chat_template` is the template's text (`chat.resolve_chat_template`), None when there is none.
    Raises DataError: conversations without a template, a tokenizer without EOS, conversations the template
    refuses.
    """
    kept: list[TokenizedExample] = []
    num_truncated = 0
    for sequence in sequences(examples, tokenizer, chat_template):
        num_truncated += len(sequence.ids) > max_length
        input_ids = array("i", sequence.ids[:max_length])
        labels = array("i", [IGNORED]) * len(input_ids)
        for start, end in sequence.ranges if completion_only else [(0, len(sequence.ids))]:
            labels[max(start, 1) : end] = input_ids[max(start, 1) : end]
        example = TokenizedExample(input_ids=input_ids, labels=labels)
        if num_targets(example):
            kept.append(example)
    return TokenizedSet.of(
        kept,
        source=source,
        num_dropped=len(examples) - len(kept),
        num_truncated=num_truncated,
        num_duplicates=num_duplicates,
    )


def _digest(examples: Sequence[TokenizedExample]) -> str:
    sha = hashlib.sha256()
    for example in examples:
        for values in (example.input_ids, example.labels):
            packed = array("i", values)
            if sys.byteorder == "big":
                packed.byteswap()
            sha.update(len(packed).to_bytes(8, "little") + packed.tobytes())
    return sha.hexdigest()
