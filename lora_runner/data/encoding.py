"""Texts -> token ids, and where ranges of their characters lie among the tokens."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice, pairwise
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True, kw_only=True)
class Draft:
    """A text to tokenise and its character ranges with loss; `plain`: BOS and EOS are still to be added."""

    text: str
    spans: tuple[tuple[int, int], ...]
    plain: bool
    prompt_alone: bool = False
    """What stands before the loss is a prompt that a server tokenises alone; so are those of plain texts."""


def opening(tokenizer: PreTrainedTokenizerBase) -> list[int]:
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


def encode_spans(
    drafts: Sequence[Draft], tokenizer: PreTrainedTokenizerBase
) -> Iterator[tuple[list[int], list[tuple[int, int]], bool]]:
    """Yield the ids of each draft, its spans as token ranges, and whether a token of the whole text spans the
    beginning of one.

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
        if joined == whole or ((draft.plain or draft.prompt_alone) and _same_text(joined, whole, tokenizer)):
            # A prompt is tokenised alone when the model is used: its tokens must not depend on what follows.
            positions = [0]
            for part in parts:
                positions.append(positions[-1] + len(part))
            ids, spanned = joined, set(edges if joined != whole else ())
        else:
            found = list(_boundaries(draft.text, edges[1:-1], whole, tokenizer))
            positions = [0, *(place for place, _ in found), len(whole)]
            spanned = {edge for edge, (_, is_exact) in zip(edges[1:-1], found, strict=True) if not is_exact}
            ids = whole
        at = dict(zip(edges, positions, strict=True))
        merges = any(start in spanned for start, _ in draft.spans)
        yield ids, [(at[start], at[end]) for start, end in draft.spans], merges


def _boundaries(
    text: str, edges: Sequence[int], whole: list[int], tokenizer: PreTrainedTokenizerBase
) -> Iterator[tuple[int, bool]]:
    """Yield where in the tokens of a text each of its characters `edges` lies, and whether what stands
    before it has the same tokens on its own.

    The place is exact where what stands before or after the edge has the same tokens on its own; otherwise
    a token spans the edge and belongs to what follows.
    """
    heads = _encode([text[:edge] for edge in edges], tokenizer)
    tails = _encode([text[edge:] for edge in edges], tokenizer)
    for head, tail in zip(heads, tails, strict=True):
        if whole[: len(head)] != head and whole[len(whole) - len(tail) :] == tail:
            yield len(whole) - len(tail), False
        else:
            place = _common_prefix(head, whole)
            yield place, place == len(head)


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
