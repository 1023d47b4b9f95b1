"""Texts -> token ids, and character spans -> token ranges."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, islice, pairwise
from os.path import commonprefix
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True, kw_only=True)
class TextWithSpans:
    """A text to tokenize and its character ranges with loss; `plain`: BOS and EOS are still to be added."""

    text: str
    spans: tuple[tuple[int, int], ...]
    plain: bool
    prompt_alone: bool = False
    """The text before the loss is a prompt that a server tokenizes on its own; always so for plain texts."""


def start_ids(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Return the ids that the tokenizer puts before a text: BOS, or none."""
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


def encode_spans(
    texts: Sequence[TextWithSpans], tokenizer: PreTrainedTokenizerBase
) -> Iterator[tuple[list[int], list[tuple[int, int]], bool]]:
    """Yield the ids of each text, its spans as token ranges, and whether a token crosses the start of a span.

    A token that crosses the edge of a span belongs to it, as in transformers' assistant masks. Character
    offsets are not used, since they trim spaces and slow tokenizers have none: the pieces between the edges
    are tokenized separately, which normally gives the tokens of the whole text.
    """
    cuts = [sorted({0, len(each.text), *(edge for span in each.spans for edge in span)}) for each in texts]
    pieces = [each.text[a:b] for each, edges in zip(texts, cuts, strict=True) for a, b in pairwise(edges)]
    encoded_pieces = iter(_encode(pieces, tokenizer))
    for each, edges, whole in zip(
        texts, cuts, _encode([each.text for each in texts], tokenizer), strict=True
    ):
        parts = list(islice(encoded_pieces, len(edges) - 1))
        joined = [token for part in parts for token in part]
        if joined == whole or ((each.plain or each.prompt_alone) and _same_text(joined, whole, tokenizer)):
            # In use the prompt is tokenized alone, so its tokens must not depend on what follows.
            lengths = [0, *accumulate(len(part) for part in parts)]
            first = last = dict(zip(edges, lengths, strict=True))
            ids, merges = joined, joined != whole
        else:
            found = dict(zip(edges[1:-1], _boundaries(each.text, edges[1:-1], whole, tokenizer), strict=True))
            found |= {edges[0]: (0, 0, True), edges[-1]: (len(whole), len(whole), True)}
            first, last = ({edge: indices[side] for edge, indices in found.items()} for side in (0, 1))
            ids, merges = whole, any(not found[start][2] for start, _ in each.spans)
        yield ids, [(first[a], last[b] if a < b else first[a]) for a, b in each.spans], merges


def _boundaries(
    text: str, edges: Sequence[int], whole: list[int], tokenizer: PreTrainedTokenizerBase
) -> Iterator[tuple[int, int, bool]]:
    """Yield for each character edge: token index where the text before it ends, index where the text after it
    begins, and whether the text before it has the same tokens on its own.

    The two indices are equal if the text before or after the edge has the same tokens on its own; otherwise
    the tokens between them cross the edge and belong to both sides.
    """
    heads = _encode([text[:edge] for edge in edges], tokenizer)
    tails = _encode([text[edge:] for edge in edges], tokenizer)
    for head, tail in zip(heads, tails, strict=True):
        before = _common_prefix_length(head, whole)
        after = len(whole) - _common_prefix_length(tail[::-1], whole[::-1])
        if before == len(head):
            yield before, before, True
        elif after == len(whole) - len(tail):
            yield after, after, False
        else:
            yield before, max(before + 1, after), False


def _same_text(a: list[int], b: list[int], tokenizer: PreTrainedTokenizerBase) -> bool:
    first, second = (tokenizer.decode(ids, clean_up_tokenization_spaces=False) for ids in (a, b))
    return bool(first == second)


def _common_prefix_length(*ids: list[int]) -> int:
    return len(commonprefix(ids))  # noqa: RUF071 - of token ids, not of paths
