"""Counts of a set's records (used, left out, truncated) and of the tokens with loss that were lost."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from dataclasses import asdict, dataclass
from itertools import accumulate
from typing import Any

from lora_runner.data.records.record_status import RecordStatus

KEPT_BY_ADVICE = 0.9
"""Share of the tokens with loss that `max_length_for_most` keeps; losing more than a tenth is a warning."""


@dataclass(frozen=True, kw_only=True)
class SetCounts:
    """Records of one set by what happened to them, and its tokens with loss.

    num_records is the sum of num_used, num_dropped, num_empty, num_held_out, num_in_eval, num_copies and
    num_not_drawn.
    """

    num_records: int
    """As read; for a held-out evaluation set, the records held out."""
    num_used: int
    num_sequences: int
    """Made from the used records: a conversation may become one sequence per assistant turn."""
    num_dropped: int = 0
    """No token with loss is within max_length."""
    num_empty: int = 0
    """Nothing to learn: no answer, or only white space."""
    num_held_out: int = 0
    """Training records held out for evaluation, when no evaluation set is named."""
    num_in_eval: int = 0
    """Training records that are also in the evaluation set."""
    num_copies: int = 0
    """Duplicates within the evaluation set."""
    num_not_drawn: int = 0
    """Beyond max_train_examples or max_eval_examples."""
    num_repeated: int = 0
    """Duplicates among the used training records; they are trained each time."""
    num_truncated: int = 0
    """Longer than max_length, including dropped ones."""
    num_cut: int = 0
    """Used, but without the end of their answer, including its stop token."""
    num_merging: int = 0
    """The tokenizer would merge the end of the prompt and the start of the answer into one token."""
    num_target_tokens: int = 0
    """Tokens with loss that are kept."""
    num_lost_target_tokens: int = 0
    """Tokens with loss beyond max_length."""
    max_length: int = 0
    """Most tokens of a sequence; 0: no limit."""
    max_length_for_most: int = 0
    """The smallest max_length that loses at most a tenth of the tokens with loss."""
    max_length_for_all: int = 0
    """The smallest max_length that loses none of them."""
    num_placeholders: int = 0
    """Records with `<image>` or similar in their text, which is trained as text."""
    num_missing_texts: int = 0
    """Whose answer is a written missing value: nan, None, null."""
    num_blank_turns: int = 0
    """Conversations in which some, not all, trained assistant turns are empty."""

    @property
    def lost_share(self) -> float:
        """Share of the tokens with loss that max_length cuts off."""
        total = self.num_target_tokens + self.num_lost_target_tokens
        return self.num_lost_target_tokens / total if total else 0.0

    @property
    def dropped_share(self) -> float:
        """Share of the records with something to learn that are dropped."""
        total = self.num_used + self.num_dropped
        return self.num_dropped / total if total else 0.0

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON and for the study."""
        return asdict(self) | {"lost_share": self.lost_share}


class SetCounter:
    """Counts the sequences of one set as they are built."""

    def __init__(self, max_length: int) -> None:
        self._max_length = max_length
        self._with_targets = set[int]()
        self._kept, self._truncated, self._cut, self._merging = (set[int]() for _ in range(4))
        self._num_sequences = self._num_kept_targets = 0
        self._edges = Counter[int]()  # position -> ranges that begin there minus those that end there

    def add(self, example: int, length: int, ranges: list[tuple[int, int]], *, merges: bool) -> None:
        """Count a sequence before truncation; its disjoint token `ranges` carry loss."""
        max_length = self._max_length
        ranges = [(max(start, 1), end) for start, end in ranges if end > max(start, 1)]
        for start, end in ranges:
            self._edges[start] += 1
            self._edges[end] -= 1
        kept = sum(max(0, min(end, max_length) - start) for start, end in ranges)
        if ranges:
            self._with_targets.add(example)
        if kept:
            self._kept.add(example)
            self._num_sequences += 1
            self._num_kept_targets += kept
        if length > max_length:
            self._truncated.add(example)
        if any(end > max_length for _, end in ranges):
            self._cut.add(example)
        if merges:
            self._merging.add(example)

    @property
    def used(self) -> set[int]:
        """Indices of the examples with a token with loss that is kept."""
        return self._kept

    def counts(self, num_examples: int, statuses: Counter[RecordStatus], **more: Any) -> SetCounts:
        """Return the counts of a set: `num_examples` were tokenized, the `statuses` were decided before."""
        held = sum(number for status, number in statuses.items() if status != RecordStatus.USED)
        per_length = self._targets_by_position()
        total = sum(per_length)
        return SetCounts(
            num_records=num_examples + held,
            num_used=len(self._kept),
            num_sequences=self._num_sequences,
            num_dropped=len(self._with_targets - self._kept),
            num_empty=statuses[RecordStatus.EMPTY] + num_examples - len(self._with_targets),
            num_held_out=statuses[RecordStatus.HELD_OUT],
            num_in_eval=statuses[RecordStatus.IN_EVAL],
            num_copies=statuses[RecordStatus.COPY],
            num_not_drawn=statuses[RecordStatus.NOT_DRAWN],
            num_truncated=len(self._truncated),
            num_cut=len(self._cut & self._kept),
            num_merging=len(self._merging & self._kept),
            num_target_tokens=self._num_kept_targets,
            num_lost_target_tokens=total - self._num_kept_targets,
            max_length=self._max_length,
            max_length_for_most=_length_for(per_length, KEPT_BY_ADVICE * total),
            max_length_for_all=len(per_length),
            **more,
        )

    def _targets_by_position(self) -> list[int]:
        """Return how many sequences have a token with loss at each position, up to the last with any."""
        return list(accumulate(self._edges[position] for position in range(max(self._edges, default=0))))


def _length_for(per_length: list[int], wanted: float) -> int:
    """Return the smallest length that keeps `wanted` tokens with loss."""
    return min(bisect_left([*accumulate(per_length)], wanted) + 1, len(per_length))
