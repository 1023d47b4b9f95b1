"""The word of a verdict, from what a comparison shows and where the row's value lies against the best."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, get_args

from results.comparison.constants import MARGIN
from results.comparison.paired import Comparison
from results.comparison.relation import Relation, relation

Word = Literal[
    "supported", "too_low", "too_high", "not_supported", "no_difference", "undecided", "not_tested"
]
WORDS: tuple[Word, ...] = get_args(Word)
"""`not_supported` is for rules without a low and a high side: a scheduler's name, a separate embedding
rate."""

CLAIMS = frozenset(WORDS) - {"undecided", "not_tested"}
"""Words that can be wrong: the family-wise error rate is about them."""

Side = Literal["above", "below", "equal", "other"]
"""Where an arm's value lies against the best's; `other` for names."""

_WORSE: Mapping[Side, Word] = {
    "above": "too_high",
    "below": "too_low",
    "other": "not_supported",
    "equal": "undecided",
}
_LOSES_RUNS: Mapping[Side, Word] = {
    "above": "too_high",
    "below": "undecided",
    "other": "not_supported",
    "equal": "undecided",
}
_BETTER_OUTSIDE: Mapping[Side, Word] = {
    "above": "too_low",
    "below": "too_high",
    "other": "not_supported",
}
_SEPARATE: Mapping[Relation, Word] = {
    "worse": "supported",
    "loses_runs": "supported",
    "within": "no_difference",
    "no_worse": "not_supported",
    "better": "not_supported",
    "open": "undecided",
}
_RESTS_ON: Mapping[Word, frozenset[Relation]] = {
    "supported": frozenset({"worse", "loses_runs"}),
    "no_difference": frozenset({"within"}),
    "too_low": frozenset({"better"}),
    "too_high": frozenset({"better"}),
    "not_supported": frozenset({"better"}),
}


def value_word(comparison: Comparison, *, side: Side, margin: float = MARGIN) -> Word:
    """The word for a row whose own value is the comparison's arm and whose best is the other.

    Without an interval or enough lost runs: undecided. Worse than the best by more than the margin: too high
    above it, too low below it. Not worse by more than the margin: supported when the row may even be better,
    no_difference when both ends lie within the margin. The sides are not alike: the loss is flat to the left
    of the best rate and a cliff to its right, so runs that end early make a value above the best too high,
    and one below the best undecided, since a low rate does not explain them.
    """
    found = relation(comparison, margin)
    if found == "loses_runs":
        return _LOSES_RUNS[side]
    if found == "worse":
        return _WORSE[side]
    if found in ("better", "no_worse"):
        return "supported"
    return "no_difference" if found == "within" else "undecided"


def region_word(
    outside: Sequence[tuple[Side, Comparison]],
    inside: Sequence[Comparison],
    *,
    margin: float = MARGIN,
) -> Word:
    """The word for a row in whose range the best itself lies: it is tested by arms that differ in its
    parameter alone.

    An arm outside that is better by more than the margin refutes the row, one that is worse supports it, one
    within the margin says that leaving the row costs nothing. Arms inside alone can say that the row's own
    value is as good as the best. Without any, nothing could have contradicted the row: undecided.
    """
    seen = [(side, relation(comparison, margin)) for side, comparison in outside]
    for side, found in seen:
        if found == "better" and side != "equal":
            return _BETTER_OUTSIDE[side]
    relations = {found for _, found in seen}
    # Where another name does as well, the choice matters little, however bad a third one is. A range with a
    # cliff on one side is right about that side.
    if any(found == "within" and side == "other" for side, found in seen):
        return "no_difference"
    if relations & {"worse", "loses_runs"}:
        return "supported"
    if "within" in relations:
        return "no_difference"
    as_good = {"within", "no_worse", "better"}
    return "supported" if as_good & {relation(c, margin) for c in inside} else "undecided"


def rests_on(word: Word, comparisons: Sequence[Comparison], margin: float = MARGIN) -> Comparison | None:
    """Of the comparisons that `region_word` was given, outside first, the one to show beside its word."""
    wanted = _RESTS_ON.get(word, frozenset())
    shown = [comparison for comparison in comparisons if relation(comparison, margin) in wanted]
    return next(iter(shown or comparisons), None)


def boundary_word(comparison: Comparison, *, direction: str, side: Side, margin: float = MARGIN) -> Word:
    """The word for a row that calls a value too high or too low; the comparison's arm takes that value.

    Supported when it is worse than a best on the other side. When it is no worse, or the best lies beyond it,
    the boundary itself is in the wrong place: too_low when good values lie above it, too_high when they lie
    below.
    """
    found = relation(comparison, margin)
    misplaced: Word = "too_low" if direction == "too_high" else "too_high"
    if found in ("within", "no_worse", "better"):
        return misplaced
    if found == "worse":
        said_side = "above" if direction == "too_high" else "below"
        return "supported" if side == said_side else misplaced
    if found == "loses_runs" and side == "above" and direction == "too_high":
        return "supported"
    return "undecided"


def separate_rate_word(comparison: Comparison, *, margin: float = MARGIN) -> Word:
    """The word for rules that want a separate learning rate for embeddings; the arm has one for all, itself
    tuned."""
    return _SEPARATE[relation(comparison, margin)]


def combine(words: Sequence[Word]) -> Word:
    """One word for a row with several arms of its own: the best one decides, unless a value is too high."""
    order: tuple[Word, ...] = ("too_high", "supported", "no_difference")
    for word in order:
        if word in words:
            return word
    claimed = set(words)
    return claimed.pop() if len(claimed) == 1 else "undecided"
