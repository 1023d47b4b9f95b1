"""Examples -> sequences of token ids with the ranges that carry loss, before anything is cut or counted."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

from lora_runner.data.chat import ChatRenderer
from lora_runner.data.encoding import Draft, encode_spans, opening
from lora_runner.data.formats import Example
from lora_runner.data.records import BadRecord, Problem, problems_error
from lora_runner.errors import DataError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_CHUNK = 1000  # texts per call of the tokenizer, which works on them in parallel


@dataclass(frozen=True, kw_only=True)
class TrainedSequence:
    """Token ids of one sequence, and the (start, end) ranges of them that carry loss."""

    example: int
    """Number of the example it was made of, from 0; one example may become several sequences."""
    ids: list[int]
    ranges: list[tuple[int, int]]
    merges: bool = False
    """Whether the tokenizer joins what stands before a range and its beginning into one token."""


def sequences(
    examples: Sequence[Example], tokenizer: PreTrainedTokenizerBase, chat_template: str | None
) -> Iterator[TrainedSequence]:
    """Yield what the examples become, in their order and at full length.

    Raises DataError: conversations without a template, a tokenizer without EOS, conversations the template
    refuses.
    """
    drafts = enumerate(_drafts(examples, tokenizer, chat_template))
    first: list[int] | None = None
    while chunk := list(islice(drafts, _CHUNK)):
        encoded = encode_spans([draft for _, draft in chunk], tokenizer)
        for (number, draft), (ids, ranges, merges) in zip(chunk, encoded, strict=True):
            if draft.plain:
                if first is None:
                    first = opening(tokenizer)
                if first and ids[: len(first)] != first:
                    ids = first + ids
                    ranges = [(start + len(first), end + len(first)) for start, end in ranges]
                if ids[-1:] != [tokenizer.eos_token_id]:
                    ranges = [*ranges, (len(ids), len(ids) + 1)]
                    ids = [*ids, tokenizer.eos_token_id]
            yield TrainedSequence(example=number, ids=ids, ranges=ranges, merges=merges)


def _drafts(
    examples: Sequence[Example], tokenizer: PreTrainedTokenizerBase, chat_template: str | None
) -> list[Draft]:
    renderer = None if chat_template is None else ChatRenderer(tokenizer, chat_template)
    drafts: list[Draft] = []
    problems: list[Problem] = []
    for example in examples:
        try:
            drafts.append(_draft(example, tokenizer, renderer))
        except BadRecord as error:
            problems.append((example.origin, str(error)))
    if problems:
        raise problems_error(problems)
    return drafts


def _draft(example: Example, tokenizer: PreTrainedTokenizerBase, renderer: ChatRenderer | None) -> Draft:
    if example.messages is not None and renderer is not None:
        chat = renderer.render(example)
        return Draft(text=chat.text, spans=chat.spans, plain=False)
    if example.prompt is None and example.text is None:
        raise DataError(
            "conversations need a chat template and the tokenizer has none: set chat_template to jinja text,"
            " to the path of a template file, or to chatml for the built-in one",
            path=example.origin.path,
            line=example.origin.line,
        )
    if tokenizer.eos_token_id is None:
        raise DataError("the tokenizer has no eos_token, which must end every completion; set one")
    if example.prompt is not None and example.completion is not None:
        text = example.prompt + example.completion
        return Draft(text=text, spans=((len(example.prompt), len(text)),), plain=True)
    return Draft(text=example.text or "", spans=((0, len(example.text or "")),), plain=True)
