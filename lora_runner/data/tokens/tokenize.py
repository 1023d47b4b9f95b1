"""Examples -> token ids and labels."""

from __future__ import annotations

import hashlib
import sys
from array import array
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from lora_runner.data.records.example import Example
from lora_runner.data.records.record_checks import count_suspicious
from lora_runner.data.records.record_status import RecordStatus
from lora_runner.data.tokens.build_sequences import TokenSequence, build_sequences
from lora_runner.data.tokens.rendering_counts import RenderingCounter, RenderingCounts
from lora_runner.data.tokens.set_counts import SetCounter, SetCounts

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

IGNORED = -100
"""Label of a token without loss."""


@dataclass(frozen=True, kw_only=True)
class TokenizedExample:
    """One sequence; `labels[i]` is `input_ids[i]` or -100, not shifted.

    `labels[0]` is always -100, since nothing precedes the first token, so the number of labels is the number
    of predictions.
    """

    input_ids: Sequence[int]  # (length,), int32 arrays if made by `tokenize`, to save memory
    labels: Sequence[int]  # (length,)


@dataclass(frozen=True, kw_only=True)
class TokenizedSet:
    """Tokenized examples, and counts of what was lost; built with `of`."""

    examples: tuple[TokenizedExample, ...] = field(repr=False)
    source: str
    """Path or hub id as the user named it, with the split or share taken."""
    num_tokens: int
    num_target_tokens: int
    """Tokens with loss, the denominator of the token-weighted mean loss."""
    counts: SetCounts
    """What happened to the records."""
    digest: str
    """SHA-256 of all ids and labels in order; equal for equal sets."""
    rendering: RenderingCounts = field(default_factory=RenderingCounts)
    """How the records were rendered, and the stop tokens of their completions."""

    @classmethod
    def of(
        cls,
        examples: Iterable[TokenizedExample],
        *,
        source: str,
        counts: SetCounts | None = None,
        rendering: RenderingCounts | None = None,
    ) -> TokenizedSet:
        """Count and digest the examples; without `counts`, each is a record that lost nothing."""
        kept = tuple(examples)
        num_target_tokens = sum(num_targets(example) for example in kept)
        return cls(
            examples=kept,
            source=source,
            num_tokens=sum(len(example.input_ids) for example in kept),
            num_target_tokens=num_target_tokens,
            counts=counts
            or SetCounts(
                num_records=len(kept),
                num_used=len(kept),
                num_sequences=len(kept),
                num_target_tokens=num_target_tokens,
            ),
            digest=_digest(kept),
            rendering=rendering or RenderingCounts(),
        )

    def __len__(self) -> int:
        return len(self.examples)


def num_targets(example: TokenizedExample) -> int:
    """Return the number of tokens with loss."""
    return len(example.labels) - example.labels.count(IGNORED)


def tokenize(
    examples: Sequence[Example],
    tokenizer: PreTrainedTokenizerBase,
    *,
    source: str,
    max_length: int,
    completion_only: bool = True,
    chat_template: str | None = None,
    statuses: Mapping[RecordStatus, int] | None = None,
) -> TokenizedSet:
    """Tokenize examples, keep the first `max_length` tokens of each, drop those without a token with loss.

    Conversations have exactly the BOS and end-of-turn tokens that the chat template prints. Prompts,
    completions and texts begin as the tokenizer begins a text (with or without BOS) and end with EOS.
    `chat_template` is the template's text (`resolve_chat_template`) or None. `statuses` counts the records by
    what was decided before, for `counts`.
    Raises DataError for conversations without a template or rejected by it, and a tokenizer without EOS.
    """
    kept: list[TokenizedExample] = []
    counter, rendering = SetCounter(max_length), RenderingCounter()
    for sequence in build_sequences(examples, tokenizer, chat_template, completion_only=completion_only):
        example, ranges = truncate_and_label(sequence, max_length=max_length, completion_only=completion_only)
        counter.add(sequence.example, len(sequence.ids), ranges, merges=sequence.merges)
        if num_targets(example):
            kept.append(example)
            rendering.add(sequence, len(example.input_ids))
    used = [examples[number] for number in sorted(counter.used)]
    counts = counter.counts(
        len(examples),
        Counter(statuses),
        num_repeated=len(used) - len({example.content_key for example in used}),
        **count_suspicious(used),
    )
    return TokenizedSet.of(kept, source=source, counts=counts, rendering=rendering.result())


def truncate_and_label(
    sequence: TokenSequence, *, max_length: int, completion_only: bool
) -> tuple[TokenizedExample, list[tuple[int, int]]]:
    """Truncate a sequence to `max_length` tokens and label it; also return its full ranges with loss."""
    ranges = sequence.ranges if completion_only else [(0, len(sequence.ids))]
    input_ids = array("i", sequence.ids[:max_length])
    labels = array("i", [IGNORED]) * len(input_ids)
    for start, end in ranges:
        labels[max(start, 1) : end] = input_ids[max(start, 1) : end]
    return TokenizedExample(input_ids=input_ids, labels=labels), ranges


def _digest(examples: Sequence[TokenizedExample]) -> str:
    sha = hashlib.sha256()
    for example in examples:
        for values in (example.input_ids, example.labels):
            packed = array("i", values)
            if sys.byteorder == "big":
                packed.byteswap()
            sha.update(len(packed).to_bytes(8, "little") + packed.tobytes())
    return sha.hexdigest()
