"""What became of the records of a set: used, left out, cut, and the tokens with loss that this costs."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass
from typing import Any

from lora_runner.data.records.record_status import RecordStatus

KEPT_BY_ADVICE = 0.9
"""Share of the tokens with loss that `max_length_for_most` keeps: more than a tenth lost is a warning."""


@dataclass(frozen=True, kw_only=True)
class SetCounts:
    """Records of one set by what became of them, and its tokens with loss.

    num_records is the sum of num_used, num_dropped, num_empty, num_held_out, num_in_eval, num_copies and
    num_not_drawn.
    """

    num_records: int
    """As read; of an evaluation share, what was held out."""
    num_used: int
    num_sequences: int
    """What the used records became: a conversation may become one sequence for each assistant turn."""
    num_dropped: int = 0
    """Nothing of what they teach lies within max_length."""
    num_empty: int = 0
    """Nothing to learn: no answer, or one of blanks alone."""
    num_held_out: int = 0
    """Training records that evaluate, where no evaluation set is named."""
    num_in_eval: int = 0
    """Training records whose copies evaluate."""
    num_copies: int = 0
    """Evaluation records that the set holds already."""
    num_not_drawn: int = 0
    """Beyond max_train_examples or max_eval_examples."""
    num_repeated: int = 0
    """Used training records that are copies of another one: they train as often as they are there."""
    num_truncated: int = 0
    """Longer than max_length, dropped ones included."""
    num_cut: int = 0
    """Used, but without the end of what they teach, its stop token with it."""
    num_merging: int = 0
    """The tokenizer joins the end of the prompt and the beginning of the answer into one token."""
    num_target_tokens: int = 0
    """Tokens with loss that are left."""
    num_lost_target_tokens: int = 0
    """Tokens with loss beyond max_length."""
    max_length: int = 0
    """Tokens that a sequence may have; 0: no limit."""
    max_length_for_most: int = 0
    """The smallest max_length that loses at most a tenth of the tokens with loss."""
    max_length_for_all: int = 0
    """The smallest max_length that loses none of them."""
    num_placeholders: int = 0
    """With `<image>` or the like in their text: the model gets that text, and no picture."""
    num_missing_texts: int = 0
    """Whose answer is the text by which programs write that there is none: nan, None, null."""
    num_blank_turns: int = 0
    """Conversations with an answer, in which another assistant turn that is trained is empty."""

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
    """Counts the sequences of one set while they are made."""

    def __init__(self, max_length: int) -> None:
        self._max_length = max_length
        self._with_targets = set[int]()
        self._kept, self._truncated, self._cut, self._merging = (set[int]() for _ in range(4))
        self._num_sequences = self._num_kept_targets = 0
        self._edges = Counter[int]()  # position -> ranges that begin there less those that end there

    def add(self, example: int, length: int, ranges: list[tuple[int, int]], *, merges: bool) -> None:
        """Take note of a sequence at full length; `ranges` of its tokens, all apart, carry loss."""
        most = self._max_length
        ranges = [(max(start, 1), end) for start, end in ranges if end > max(start, 1)]
        for start, end in ranges:
            self._edges[start] += 1
            self._edges[end] -= 1
        kept = sum(max(0, min(end, most) - start) for start, end in ranges)
        if ranges:
            self._with_targets.add(example)
        if kept:
            self._kept.add(example)
            self._num_sequences += 1
            self._num_kept_targets += kept
        if length > most:
            self._truncated.add(example)
        if any(end > most for _, end in ranges):
            self._cut.add(example)
        if merges:
            self._merging.add(example)

    @property
    def used(self) -> set[int]:
        """Numbers of the examples of which a token with loss is left."""
        return self._kept

    def counts(self, num_examples: int, statuses: Counter[RecordStatus], **more: Any) -> SetCounts:
        """Return the counts of a set of which `num_examples` came this far, and `statuses` before it."""
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
        """Return how many sequences have a token with loss at each position, up to the last that has any."""
        found, running = [], 0
        for position in range(max(self._edges, default=0)):
            running += self._edges[position]
            found.append(running)
        return found


def _length_for(per_length: list[int], wanted: float) -> int:
    """Return the smallest length within which `wanted` tokens with loss lie."""
    so_far = 0
    for length, here in enumerate(per_length, start=1):
        so_far += here
        if so_far >= wanted:
            return length
    return len(per_length)
