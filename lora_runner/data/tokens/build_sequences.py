"""Examples -> sequences of token ids and the ranges that carry loss, before truncation."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

from lora_runner.data.chat.chat_renderer import ChatRenderer
from lora_runner.data.records.example import Example
from lora_runner.data.records.record import BadRecord, Problem, problems_error
from lora_runner.data.tokens.encode_spans import TextWithSpans, encode_spans, start_ids
from lora_runner.errors import DataError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_CHUNK = 1000  # texts per call of the tokenizer, which works on them in parallel


@dataclass(frozen=True, kw_only=True)
class TokenSequence:
    """Token ids of one sequence, and the (start, end) ranges of them that carry loss."""

    example: int
    """Index of its example; one example may become several sequences."""
    ids: list[int]
    ranges: list[tuple[int, int]]
    stops: Mapping[int, tuple[int, str]]
    """Positions of stop tokens with loss -> (id, text)."""
    way: str
    """`marked`, `whole`, `per turn` or `all` of a conversation (see chat_renderer); `completion`, `text`."""
    notes: tuple[str, ...] = ()
    merges: bool = False
    """Whether a token crosses the start of a range."""


@dataclass(frozen=True, kw_only=True)
class _RenderedText(TextWithSpans):
    """A text that becomes a sequence."""

    example: int
    way: str
    stops: tuple[str | None, ...] = ()
    notes: tuple[str, ...] = ()


def build_sequences(
    examples: Sequence[Example],
    tokenizer: PreTrainedTokenizerBase,
    chat_template: str | None,
    *,
    completion_only: bool = True,
) -> Iterator[TokenSequence]:
    """Yield the sequences of the examples, in order and at full length.

    Raises DataError for conversations without a template or rejected by it, and a tokenizer without EOS.
    """
    texts = iter(_texts(examples, tokenizer, chat_template, completion_only))
    first: list[int] | None = None
    while chunk := list(islice(texts, _CHUNK)):
        encoded = encode_spans(chunk, tokenizer)
        for made, (ids, ranges, merges) in zip(chunk, encoded, strict=True):
            if made.plain:
                if first is None:
                    first = start_ids(tokenizer)
                if first and ids[: len(first)] != first:
                    ids = first + ids
                    ranges = [(start + len(first), end + len(first)) for start, end in ranges]
                if ids[-1:] != [tokenizer.eos_token_id]:
                    ranges = [*ranges, (len(ids), len(ids) + 1)]
                    ids = [*ids, tokenizer.eos_token_id]
                stops = {len(ids) - 1: (ids[-1], str(tokenizer.eos_token))}
            else:
                stops = dict(_stops(ids, ranges, made.stops, tokenizer))
            yield TokenSequence(
                example=made.example,
                ids=ids,
                ranges=ranges,
                stops=stops,
                way=made.way,
                notes=made.notes,
                merges=merges,
            )


def _stops(
    ids: list[int],
    ranges: list[tuple[int, int]],
    texts: Sequence[str | None],
    tokenizer: PreTrainedTokenizerBase,
) -> Iterator[tuple[int, tuple[int, str]]]:
    for (start, end), text in zip(ranges, texts, strict=True):
        token = None if text is None else tokenizer.convert_tokens_to_ids(text)
        if text is not None and isinstance(token, int) and token in ids[max(start, 1) : end]:
            yield end - 1 - ids[start:end][::-1].index(token), (token, text)


def _texts(
    examples: Sequence[Example],
    tokenizer: PreTrainedTokenizerBase,
    chat_template: str | None,
    completion_only: bool,
) -> list[_RenderedText]:
    renderer = None if chat_template is None else ChatRenderer(tokenizer, chat_template)
    texts: list[_RenderedText] = []
    problems: list[Problem] = []
    for number, example in enumerate(examples):
        try:
            if example.messages is None or renderer is None:
                texts.append(_plain_text(number, example, tokenizer))
                continue
            for chat in renderer.render(example, completion_only=completion_only):
                # If several turns share a text, a server tokenizes the earlier ones with their answers.
                alone = chat.way in ("per turn", "whole") and len(chat.spans) == 1
                texts.append(_RenderedText(example=number, plain=False, prompt_alone=alone, **vars(chat)))
        except BadRecord as error:
            problems.append((example.origin, str(error)))
    if problems:
        raise problems_error(problems)
    return texts


def _plain_text(number: int, example: Example, tokenizer: PreTrainedTokenizerBase) -> _RenderedText:
    if example.prompt is None and example.text is None:
        raise DataError(
            "conversations need a chat template and the tokenizer has none: set chat_template to jinja text,"
            " to the path of a template file, or to chatml for the built-in one",
            path=example.origin.path,
            line=example.origin.line,
        )
    if tokenizer.eos_token_id is None:
        raise DataError("the tokenizer has no eos_token, which must end every completion; set one")
    if example.prompt is None:
        prompt, answer, way = "", example.text or "", "text"
    else:
        prompt, answer, way = example.prompt, example.completion or "", "completion"
    spans = ((len(prompt), len(prompt + answer)),)
    return _RenderedText(example=number, text=prompt + answer, spans=spans, plain=True, way=way)
