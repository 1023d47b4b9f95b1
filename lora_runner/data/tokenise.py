"""Examples -> token ids and labels."""

from __future__ import annotations

import hashlib
import sys
from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice, pairwise
from typing import TYPE_CHECKING

from lora_runner.data.chat import ChatRenderer
from lora_runner.data.formats import Example
from lora_runner.data.records import BadRecord, Problem, problems_error
from lora_runner.errors import DataError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

IGNORED = -100
"""Label of a token without loss."""

_CHUNK = 1000  # examples per call of the tokenizer, which works on them in parallel


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
    for ids, ranges in _sequences(examples, tokenizer, chat_template):
        num_truncated += len(ids) > max_length
        input_ids = array("i", ids[:max_length])
        labels = array("i", [IGNORED]) * len(input_ids)
        for start, end in ranges if completion_only else [(0, len(ids))]:
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


@dataclass(frozen=True, kw_only=True)
class _Draft:
    """A text to tokenise and its character ranges with loss; `plain`: BOS and EOS are still to be added."""

    text: str
    spans: tuple[tuple[int, int], ...]
    plain: bool


def _sequences(
    examples: Sequence[Example], tokenizer: PreTrainedTokenizerBase, chat_template: str | None
) -> Iterator[tuple[list[int], list[tuple[int, int]]]]:
    """Yield per example the token ids and the token ranges with loss."""
    drafts = iter(_drafts(examples, tokenizer, chat_template))
    opening: list[int] | None = None
    while chunk := list(islice(drafts, _CHUNK)):
        for draft, (ids, ranges) in zip(chunk, _encode_spans(chunk, tokenizer), strict=True):
            if draft.plain:
                if opening is None:
                    opening = _opening(tokenizer)
                if opening and ids[: len(opening)] != opening:
                    ids = opening + ids
                    ranges = [(start + len(opening), end + len(opening)) for start, end in ranges]
                if ids[-1:] != [tokenizer.eos_token_id]:
                    ranges = [*ranges, (len(ids), len(ids) + 1)]
                    ids = [*ids, tokenizer.eos_token_id]
            yield ids, ranges


def _drafts(
    examples: Sequence[Example], tokenizer: PreTrainedTokenizerBase, chat_template: str | None
) -> list[_Draft]:
    renderer = None if chat_template is None else ChatRenderer(tokenizer, chat_template)
    drafts: list[_Draft] = []
    problems: list[Problem] = []
    for example in examples:
        try:
            drafts.append(_draft(example, tokenizer, renderer))
        except BadRecord as error:
            problems.append((example.origin, str(error)))
    if problems:
        raise problems_error(problems)
    return drafts


def _draft(example: Example, tokenizer: PreTrainedTokenizerBase, renderer: ChatRenderer | None) -> _Draft:
    if example.messages is not None and renderer is not None:
        chat = renderer.render(example)
        return _Draft(text=chat.text, spans=chat.spans, plain=False)
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
        return _Draft(text=text, spans=((len(example.prompt), len(text)),), plain=True)
    return _Draft(text=example.text or "", spans=((0, len(example.text or "")),), plain=True)


def _opening(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Return what the tokenizer itself puts before a text: BOS, or nothing."""
    plain = _encode(["a"], tokenizer)[0]
    whole = list(tokenizer("a", verbose=False).input_ids)
    if not plain:  # a vocabulary without this letter
        return whole[:1] if whole[:1] == [tokenizer.bos_token_id] else []
    for start in range(len(whole) - len(plain) + 1):
        if whole[start : start + len(plain)] == plain:
            return whole[:start]
    return []


def _encode(texts: Sequence[str], tokenizer: PreTrainedTokenizerBase) -> list[list[int]]:
    if not texts:
        return []
    found: list[list[int]] = tokenizer(list(texts), add_special_tokens=False, verbose=False).input_ids
    return found


def _encode_spans(
    drafts: Sequence[_Draft], tokenizer: PreTrainedTokenizerBase
) -> Iterator[tuple[list[int], list[tuple[int, int]]]]:
    """Yield the ids of each draft and its spans as token ranges.

    Spans are found in tokens without the tokenizer's character offsets (which trim blanks, and slow
    tokenizers have none): the pieces between the boundaries are tokenised alone, and normally give the very
    tokens of the whole.
    """
    cuts = [
        sorted({0, len(draft.text), *(edge for span in draft.spans for edge in span)}) for draft in drafts
    ]
    pieces = [draft.text[a:b] for draft, edges in zip(drafts, cuts, strict=True) for a, b in pairwise(edges)]
    encoded_pieces = iter(_encode(pieces, tokenizer))
    for draft, edges, whole in zip(
        drafts, cuts, _encode([draft.text for draft in drafts], tokenizer), strict=True
    ):
        parts = list(islice(encoded_pieces, len(edges) - 1))
        joined = [token for part in parts for token in part]
        if joined == whole or (draft.plain and _same_text(joined, whole, tokenizer)):
            # A prompt is tokenised alone when the model is used: its tokens must not depend on what follows.
            positions = [0]
            for part in parts:
                positions.append(positions[-1] + len(part))
            ids = joined
        else:
            positions = [0, *_boundaries(draft.text, edges[1:-1], whole, tokenizer), len(whole)]
            ids = whole
        at = dict(zip(edges, positions, strict=True))
        yield ids, [(at[start], at[end]) for start, end in draft.spans]


def _boundaries(
    text: str, edges: Sequence[int], whole: list[int], tokenizer: PreTrainedTokenizerBase
) -> Iterator[int]:
    """Yield where in the tokens of a text each of its characters `edges` lies.

    Exact where what stands before or after the edge has the same tokens on its own; otherwise a token spans
    the edge and belongs to what follows.
    """
    heads = _encode([text[:edge] for edge in edges], tokenizer)
    tails = _encode([text[edge:] for edge in edges], tokenizer)
    for head, tail in zip(heads, tails, strict=True):
        if whole[: len(head)] != head and whole[len(whole) - len(tail) :] == tail:
            yield len(whole) - len(tail)
        else:
            yield _common_prefix(head, whole)


def _same_text(a: list[int], b: list[int], tokenizer: PreTrainedTokenizerBase) -> bool:
    first, second = (tokenizer.decode(ids, clean_up_tokenization_spaces=False) for ids in (a, b))
    return bool(first == second)


def _common_prefix(a: Sequence[int], b: Sequence[int]) -> int:
    length = 0
    for left, right in zip(a, b, strict=False):
        if left != right:
            break
        length += 1
    return length


def _digest(examples: Sequence[TokenizedExample]) -> str:
    sha = hashlib.sha256()
    for example in examples:
        for values in (example.input_ids, example.labels):
            packed = array("i", values)
            if sys.byteorder == "big":
                packed.byteswap()
            sha.update(len(packed).to_bytes(8, "little") + packed.tobytes())
    return sha.hexdigest()
