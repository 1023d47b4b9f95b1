"""The word of a verdict, from what a comparison shows and where the row's value lies against the best."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from results.verdict.statistics import MARGIN, Comparison, Relation, relation

Word = Literal[
    "supported", "too_low", "too_high", "not_supported", "no_difference", "undecided", "not_tested"
]
WORDS: tuple[Word, ...] = (
    "supported",
    "too_low",
    "too_high",
    "not_supported",
    "no_difference",
    "undecided",
    "not_tested",
)
"""`not_supported` is for rules without a low and a high side: a scheduler's name, a separate embedding
rate."""

CLAIMS = frozenset(WORDS) - {"undecided", "not_tested"}

Side = Literal["above", "below", "equal", "other"]
"""Where an arm's value lies against the best's; `other` for names."""


def decide(
    comparison: Comparison | None, *, side: Side, holds_best: bool = False, margin: float = MARGIN
) -> Word:
    """The word for a row whose own value is the comparison's arm and whose best is the other.

    Without a comparison, an interval or enough lost runs: undecided. Worse than the best by more than the
    margin: too high above it, too low below it. Not worse by more than the margin: supported when the best
    lies in the row or the row may even be better, no_difference when both ends lie within the margin. The
    sides are not alike: the loss is flat to the left of the best rate and a cliff to its right, so runs that
    end early make a value above the best too high, and one below the best undecided, since no slow rate
    explains them.
    """
    if comparison is None:
        return "undecided"
    found = relation(comparison, margin)
    if found == "loses_runs":
        return {"above": "too_high", "other": "not_supported"}.get(side, "undecided")  # type: ignore[return-value]
    if found == "worse":
        return _WORSE[side]
    if found in ("better", "no_worse"):
        return "supported"
    if found == "within":
        return "supported" if holds_best else "no_difference"
    return "undecided"


def decide_region(
    outside: Sequence[tuple[Side, Comparison]],
    inside: Sequence[tuple[Side, Comparison]],
    *,
    margin: float = MARGIN,
) -> Word:
    """The word for a row in whose range the best itself lies: it is tried by arms that differ in its
    parameter alone.

    An arm outside that is better by more than the margin refutes the row, one that is worse supports it, one
    within the margin says that leaving the row costs nothing. Arms inside alone can say that the row's own
    value is as good as the best. Without any, nothing could have contradicted the row: undecided.
    """
    seen = [(side, relation(comparison, margin)) for side, comparison in outside]
    for side, found in seen:
        if found == "better" and side != "equal":
            return {"above": "too_low", "below": "too_high"}.get(side, "not_supported")  # type: ignore[return-value]
    relations = {found for _, found in seen}
    # A name beside which another does as well matters little, however bad a third is; a range with a cliff
    # on one side is right about that side.
    if any(found == "within" and side == "other" for side, found in seen):
        return "no_difference"
    if relations & {"worse", "loses_runs"}:
        return "supported"
    if "within" in relations:
        return "no_difference"
    own = [decide(comparison, side=side, holds_best=True, margin=margin) for side, comparison in inside]
    return "supported" if "supported" in own else "undecided"


def rests_on(word: Word, comparisons: Sequence[Comparison], margin: float = MARGIN) -> Comparison | None:
    """Of the comparisons that `decide_region` was given, outside first, the one to show beside its word."""
    wanted = _SHOWS.get(word, frozenset())
    shown = [comparison for comparison in comparisons if relation(comparison, margin) in wanted]
    return next(iter(shown or comparisons), None)


def decide_boundary(
    comparison: Comparison | None, *, direction: str, side: Side, margin: float = MARGIN
) -> Word:
    """The word for a row that calls a value too high or too low; the comparison's arm takes that value.

    Supported when it is worse than a best on the other side. When it is no worse, or the best lies beyond it,
    the boundary itself stands in the wrong place: too_low when good values lie above it, too_high when they
    lie below.
    """
    if comparison is None:
        return "undecided"
    found = relation(comparison, margin)
    misplaced: Word = "too_low" if direction == "too_high" else "too_high"
    if found in ("within", "no_worse", "better"):
        return misplaced
    if found == "worse":
        return "supported" if side == _SIDE_OF[direction] else misplaced
    if found == "loses_runs" and side == "above":
        return "supported" if direction == "too_high" else "undecided"
    return "undecided"


def decide_separate(comparison: Comparison | None, *, margin: float = MARGIN) -> Word:
    """The word for rules that want a rate of their own for embeddings; the arm has one rate for all, tuned
    itself."""
    if comparison is None:
        return "undecided"
    return _SEPARATE[relation(comparison, margin)]


def combine(words: Sequence[Word]) -> Word:
    """One word for a row with several arms of its own: its best value counts, but a cliff at its high end
    more."""
    for word in ("too_high", "supported", "no_difference"):
        if word in words:
            return word  # type: ignore[return-value]
    claimed = set(words)
    return claimed.pop() if len(claimed) == 1 else "undecided"


_WORSE: dict[Side, Word] = {
    "above": "too_high",
    "below": "too_low",
    "other": "not_supported",
    "equal": "undecided",
}
_SIDE_OF = {"too_high": "above", "too_low": "below"}
_SEPARATE: dict[Relation, Word] = {
    "worse": "supported",
    "loses_runs": "supported",
    "within": "no_difference",
    "no_worse": "not_supported",
    "better": "not_supported",
    "open": "undecided",
}
_SHOWS: dict[Word, frozenset[Relation]] = {
    "supported": frozenset({"worse", "loses_runs"}),
    "no_difference": frozenset({"within"}),
    "too_low": frozenset({"better"}),
    "too_high": frozenset({"better"}),
    "not_supported": frozenset({"better"}),
}
