"""The words of a verdict on a guideline row, and which ones more data may make of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Literal, get_args

Word = Literal[
    "supported",
    "no_worse",
    "no_difference",
    "too_low",
    "too_high",
    "not_supported",
    "undecided",
    "not_tested",
]
WORDS: tuple[Word, ...] = get_args(Word)
"""`no_worse`: costs no more than the margin, and may even be better. `not_supported` is for rules without a
low and a high side, such as a scheduler's name or a separate embedding rate, and for a range with better
values on both sides."""

CLAIMS = frozenset(WORDS) - {"undecided", "not_tested"}
"""Words that can be wrong: the family-wise error rate is about them."""

REFUTES = frozenset({"too_low", "too_high", "not_supported"})

STRONGER: Mapping[Word, frozenset[Word]] = {
    "not_tested": frozenset(WORDS),
    "undecided": CLAIMS | {"not_tested"},
    "no_worse": frozenset({"supported", "no_difference"}),
    "too_low": frozenset({"not_supported"}),
    "too_high": frozenset({"not_supported"}),
}
"""What more data may make of a word; it keeps every other one."""

Side = Literal["above", "below", "equal", "other"]
"""Where an arm's value lies against the best's; `other` for names."""


def common_word(words: Iterable[Word]) -> Word:
    """What rows of one value share: of words that agree the weakest; undecided where two contradict."""
    decided = {word for word in words if word in CLAIMS}
    for word in decided:
        if decided - {word} <= STRONGER.get(word, frozenset()):
            return word
    return "undecided" if decided or "undecided" in words else "not_tested"
