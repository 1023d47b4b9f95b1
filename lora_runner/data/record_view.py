"""One training record as the model sees it: its tokens as text, which carry loss, and where it is cut."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING

from lora_runner.data.chat.chat_template import resolve_chat_template
from lora_runner.data.records.record_status import RecordStatus
from lora_runner.data.tokens.build_sequences import TokenSequence, build_sequences
from lora_runner.data.tokens.tokenize import IGNORED, truncate_and_label
from lora_runner.data.train_eval_split import split_records
from lora_runner.data_spec import DataSpec
from lora_runner.errors import DataError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

STATUS_TEXT = {
    RecordStatus.USED: "trained",
    RecordStatus.EMPTY: "left out: it has no answer to learn",
    RecordStatus.HELD_OUT: "held out for evaluation, not trained",
    RecordStatus.IN_EVAL: "left out: the evaluation set holds a copy of it",
    RecordStatus.NOT_DRAWN: "not drawn (max_train_examples)",
}
"""What is done with a training record, in words."""


@dataclass(frozen=True, kw_only=True)
class TokenRun:
    """Consecutive tokens treated alike, decoded with special tokens."""

    text: str
    is_trained: bool
    """Whether they carry loss, or would if the record were trained."""
    is_cut: bool
    """Whether they are beyond max_length, so the model never sees them."""


@dataclass(frozen=True, kw_only=True)
class SequenceView:
    """One of the sequences made from a record."""

    pieces: tuple[TokenRun, ...]
    num_tokens: int
    """Before truncation."""
    num_target_tokens: int
    """Tokens with loss within max_length."""
    num_lost_target_tokens: int
    stops: tuple[str, ...]
    """Stop tokens with loss within max_length, in order."""
    way: str
    """How it was rendered; see TokenSequence."""
    notes: tuple[str, ...]
    """Remarks on how it was rendered."""


@dataclass(frozen=True, kw_only=True)
class RecordView:
    """A training record, what is done with it, and the sequences made from it."""

    number: int
    """From 1, in the order of the files."""
    num_records: int
    place: str
    """FILE:LINE."""
    said: str
    """What is done with it, in words."""
    max_length: int
    sequences: tuple[SequenceView, ...]


def show_record(spec: DataSpec, tokenizer: PreTrainedTokenizerBase, number: int) -> RecordView:
    """Return the training record `number` of a sweep, counted from 1.

    Raises DataError for a number that does not exist, and for anything that `load_data` cannot read.
    """
    train, _ = split_records(spec)
    if not 1 <= number <= len(train.examples):
        raise DataError(
            f"the training set has the records 1 to {len(train.examples):,}; there is no record {number:,}",
            path=spec.train,
        )
    example, status = train.examples[number - 1], train.statuses[number - 1]
    template = resolve_chat_template(spec.chat_template, tokenizer)
    made = build_sequences([example], tokenizer, template, completion_only=spec.completion_only)
    shown = tuple(_shown(sequence, tokenizer, spec) for sequence in made)
    said = STATUS_TEXT[status]
    if status == RecordStatus.USED and not any(sequence.num_target_tokens for sequence in shown):
        has_targets = any(sequence.num_lost_target_tokens for sequence in shown)
        said = (
            f"dropped: nothing that it teaches lies within max_length {spec.max_length:,}"
            if has_targets
            else STATUS_TEXT[RecordStatus.EMPTY]
        )
    return RecordView(
        number=number,
        num_records=len(train.examples),
        place=str(example.origin),
        said=said,
        max_length=spec.max_length,
        sequences=shown,
    )


def _shown(sequence: TokenSequence, tokenizer: PreTrainedTokenizerBase, spec: DataSpec) -> SequenceView:
    ids, max_length = sequence.ids, spec.max_length
    example, _ = truncate_and_label(sequence, max_length=len(ids), completion_only=spec.completion_only)
    trained = [label != IGNORED for label in example.labels]
    return SequenceView(
        pieces=tuple(
            _pieces(ids, [(mark, position >= max_length) for position, mark in enumerate(trained)], tokenizer)
        ),
        num_tokens=len(ids),
        num_target_tokens=sum(trained[:max_length]),
        num_lost_target_tokens=sum(trained[max_length:]),
        stops=tuple(text for position, (_, text) in sorted(sequence.stops.items()) if position < max_length),
        way=sequence.way,
        notes=sequence.notes,
    )


def _pieces(
    ids: list[int], marks: Sequence[tuple[bool, bool]], tokenizer: PreTrainedTokenizerBase
) -> Iterator[TokenRun]:
    def text(tokens: list[int]) -> str:
        return str(tokenizer.decode(tokens, clean_up_tokenization_spaces=False))

    whole, before, end = text(ids), "", 0
    for (is_trained, is_cut), run in groupby(marks):
        start, end = end, end + len(list(run))
        up_to_here = text(ids[:end])
        # The difference of two prefixes: decoded alone, a run may lose its leading space.
        here = (
            up_to_here[len(before) :]
            if whole.startswith(up_to_here) and up_to_here.startswith(before)
            else text(ids[start:end])
        )
        before = up_to_here
        yield TokenRun(text=here, is_trained=is_trained, is_cut=is_cut)
