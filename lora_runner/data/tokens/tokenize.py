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

    `labels[0]` is always -100: nothing stands before the first token to predict it from, so the number of
    labels is the number of predictions.
    """

    input_ids: Sequence[
        int
    ]  # (length,), int32 arrays when made by `tokenize`: half the memory of Python ints or less
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
    counts: SetCounts
    """What became of the records."""
    digest: str
    """Sha256 of all ids and labels in order: equal digests, equal sets."""
    rendering: RenderingCounts = field(default_factory=RenderingCounts)
    """How the records became sequences, and by which tokens completions end."""

    @classmethod
    def of(
        cls,
        examples: Iterable[TokenizedExample],
        *,
        source: str,
        counts: SetCounts | None = None,
        rendering: RenderingCounts | None = None,
    ) -> TokenizedSet:
        """Count and digest the examples; without `counts` each is a record of which nothing was lost."""
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
    """Tokenise examples, keep the first `max_length` tokens of each, drop those without a token to learn.

    Conversations follow the chat template to the letter: BOS and end-of-turn tokens are those it prints.
    Prompts, completions and texts begin as the tokenizer begins a text (BOS or not, never twice) and end with
    EOS. `chat_template` is the template's text (`resolve_chat_template`), None when there is none.
    `statuses` are the numbers of records by what was done with them before, for the counts.
    Raises DataError: conversations without a template, a tokenizer without EOS, conversations the template
    refuses.
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
    """Cut a sequence to `max_length` tokens and label it; returns its ranges with loss at full length too."""
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
