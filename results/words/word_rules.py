"""The word of a row and what it rests on, from what comparisons show and where values lie.

A word never outruns its data: with more runs of the same arms it only gets stronger (`STRONGER`), because
each rule waits until no arm can still contradict it. The comparison beside a word is one that decided it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from results.comparison.constants import MARGIN
from results.comparison.paired import Comparison
from results.comparison.relation import Relation, relation
from results.words.words import REFUTES, Side, Word
from search_spaces.dimension import Value

GOOD: frozenset[Relation] = frozenset({"better", "within", "no_worse"})
"""Of an arm that costs no more than the margin."""
COSTS: frozenset[Relation] = frozenset({"worse", "loses_runs"})

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


class ComparedValue(NamedTuple):
    """A value of a row's parameter that was compared with the best."""

    value: Value
    side: Side
    comparison: Comparison
    refutes: bool = True
    """Whether being worse speaks against the row: of a range only its end towards the best does."""


class Finding(NamedTuple):
    """A word and the comparison that decided it; beside `undecided` one that leaves it open."""

    word: Word
    comparison: Comparison | None = None


def value_word(comparison: Comparison, *, side: Side, margin: float = MARGIN) -> Word:
    """The word for a row whose own value is the comparison's arm and whose best is the other.

    Without an interval or enough lost runs: undecided. Worse than the best by more than the margin: too high
    above it, too low below it. Better by more than it: supported. Both ends within the margin: no_difference.
    No more than the margin worse, and perhaps better: no_worse. The sides are not alike: the loss is flat to
    the left of the best rate and a cliff to its right, so runs that end early make a value above the best too
    high, and one below the best undecided, since a low rate does not explain them.
    """
    match relation(comparison, margin):
        case "loses_runs" if side == "below" and _ends_worse(comparison, margin):
            return _WORSE[side]
        case "loses_runs":
            return _LOSES_RUNS[side]
        case "worse":
            return _WORSE[side]
        case "better":
            return "supported"
        case "within":
            return "no_difference"
        case "no_worse":
            return "no_worse"
    return "undecided"


def may_be_better(comparison: Comparison, margin: float = MARGIN) -> bool:
    """Whether the arm is, or with more runs could still be shown, better by more than the margin."""
    found = relation(comparison, margin)
    if found != "open":
        return found in ("better", "no_worse")
    bound = _bound(comparison, margin)
    return comparison.low is None or bound is None or comparison.low <= -bound


def value_finding(
    alone: Sequence[ComparedValue],
    retuned: Sequence[Comparison] = (),
    *,
    margin: float = MARGIN,
    is_refutable: bool = True,
    least_cost: float = 1.0,
) -> Finding:
    """The word for a row in which the best does not lie.

    `alone` are arms of the row's own value with everything else as in the best, `retuned` arms that hold the
    value beside other settings. The cheapest of all counts: the row is refuted only when none of them may be
    as good, each costing more than `least_cost` margins, and when `is_refutable`: no trial of the sweep that
    was not run again says otherwise. A value above the best that loses runs makes the row too high, whatever
    its other values do.
    """
    words = [(arm, _word_alone(arm, margin)) for arm in alone]
    said = [word for _, word in words if word is not None]
    too_high = [arm.comparison for arm, word in words if word == "too_high"]
    saved = _of(GOOD, retuned, margin)
    may_be_high = too_high or any(arm.side == "above" and word == "undecided" for arm, word in words)
    if saved or not may_be_high:
        good = _of(GOOD, [*(arm.comparison for arm in alone), *saved], margin)
        if good:
            return _cheap(good, [*(arm.comparison for arm in alone), *retuned], margin)
    refuting = too_high or [arm.comparison for arm, word in words if word in REFUTES]
    is_one_word = bool(too_high) or len(set(said)) == 1
    is_refuted = is_refutable and len(_of(COSTS, retuned, margin)) == len(retuned)
    if refuting and is_one_word and is_refuted and _cost_more_than(least_cost, [*refuting, *retuned], margin):
        return Finding("too_high" if too_high else said[0], _cheapest(refuting))
    unclear = [arm.comparison for arm, word in words if word == "undecided"]
    unclear += [comparison for comparison in retuned if relation(comparison, margin) not in COSTS]
    rest = [arm.comparison for arm in alone] + list(retuned)
    return Finding("undecided", _cheapest(unclear or rest))


def region_finding(
    outside: Sequence[ComparedValue], inside: Sequence[Comparison] = (), *, margin: float = MARGIN
) -> Finding:
    """The word for a row in whose range the best itself lies: arms outside test it, all else as in the best.

    One that is better by more than the margin refutes the row. Once none can be better any more, one that is
    worse supports a range, which is right about that side; of names all others have to be worse. All within
    the margin: leaving the row costs nothing. Arms inside alone say no more than that the row's value costs
    nothing: nothing could have contradicted the row.
    """
    found = [(arm, relation(arm.comparison, margin)) for arm in outside]
    if better := [arm for arm, shown in found if shown == "better" and arm.side != "equal"]:
        words = {_BETTER_OUTSIDE[arm.side] for arm in better}
        word = words.pop() if len(words) == 1 else "not_supported"
        return Finding(word, _cheapest([arm.comparison for arm in better]))
    if not outside:
        if good := _of(GOOD, inside, margin):
            return Finding("no_worse", _cheapest(good))
        return Finding("undecided", _cheapest(inside))
    if unclear := [arm.comparison for arm in outside if may_be_better(arm.comparison, margin)]:
        return Finding("undecided", _cheapest(unclear))
    worse = [arm.comparison for arm, shown in found if shown in COSTS]
    within = [arm.comparison for arm, shown in found if shown == "within"]
    half_open = [arm.comparison for arm, shown in found if shown == "open"]
    is_name = any(arm.side == "other" for arm in outside)
    # Where another name does as well, the choice matters little, however bad a third one is. A range with a
    # cliff on one side is right about that side.
    if worse and (not is_name or not (within or half_open)):
        return Finding("supported", _cheapest(worse))
    if within and (is_name or not half_open):
        return Finding("no_difference", _cheapest(within))
    return Finding("no_worse", _cheapest(half_open or within))


def boundary_finding(
    at_value: Sequence[ComparedValue],
    beyond: Sequence[Comparison] = (),
    good_side: Sequence[Comparison] = (),
    *,
    direction: str,
    best_is_beyond: bool,
    margin: float = MARGIN,
    is_supportable: bool = True,
    least_cost: float = 1.0,
) -> Finding:
    """The word for a row that calls a value too high or too low.

    With the best on the good side: supported when the value (`at_value`, everything else as in the best) and
    what lies at or beyond it with other settings (`beyond`) are worse. Where one of them costs no more than
    the margin, the boundary is in the wrong place: too_low when good values lie above it, too_high when they
    lie below. Where `best_is_beyond`, at the value or past it, arms on the good side tell: supported when one
    of them is better, misplaced once none can be. `is_supportable`: no trial that was not run again says
    otherwise; `least_cost`: what all have to cost more than to support the row, in margins.
    """
    misplaced: Word = "too_low" if direction == "too_high" else "too_high"
    if best_is_beyond and good_side:
        if better := _of({"better"}, good_side, margin):
            return Finding("supported", _cheapest(better))
        unclear = [comparison for comparison in good_side if may_be_better(comparison, margin)]
        return Finding("undecided" if unclear else misplaced, _cheapest(unclear or good_side))
    own = [arm.comparison for arm in at_value]
    if good := _of(GOOD, [*own, *beyond], margin):
        return Finding(misplaced, _cheapest(good))
    if best_is_beyond:
        worse = [comparison for comparison in own if _ends_worse(comparison, margin)]
        return Finding(misplaced if worse else "undecided", _cheapest(worse or own))
    # A high rate explains runs that end early, a low one does not.
    explains = direction == "too_high"
    unclear = [
        comparison
        for comparison in [*own, *beyond]
        if not (_ends_worse(comparison, margin) or (explains and comparison.loses_runs))
    ]
    if own and not unclear and is_supportable and _cost_more_than(least_cost, [*own, *beyond], margin):
        return Finding("supported", _cheapest(own))
    return Finding("undecided", _cheapest(unclear or [*own, *beyond]))


def separate_rate_finding(one_rate: Comparison, *, margin: float = MARGIN) -> Finding:
    """The word for rules that want a separate learning rate for embeddings; the arm has one for all, itself
    tuned. While it may still be better than two rates, or no worse is all that is known of it: undecided."""
    found = relation(one_rate, margin)
    word: Word = "undecided"
    if found in COSTS:
        word = "supported"
    elif found == "within":
        word = "no_difference"
    elif found == "better":
        word = "not_supported"
    elif not may_be_better(one_rate, margin):
        word = "no_worse"
    return Finding(word, one_rate)


def _ends_worse(comparison: Comparison, margin: float) -> bool:
    """Whether the runs that finished are worse by more than the margin, however many did not."""
    bound = _bound(comparison, margin)
    return comparison.low is not None and bound is not None and comparison.low > bound


def _bound(comparison: Comparison, margin: float) -> float | None:
    """The margin in nats per token, as `relation` takes it."""
    loss = comparison.other_loss if comparison.margin_loss is None else comparison.margin_loss
    return None if loss is None else margin * abs(loss)


def _word_alone(arm: ComparedValue, margin: float) -> Word | None:
    """None for a worse value elsewhere in a range, which says nothing about its end; runs that end early
    count anywhere."""
    word = value_word(arm.comparison, side=arm.side, margin=margin)
    is_cliff = arm.comparison.loses_runs and arm.side != "below"
    says_nothing = word in REFUTES and not arm.refutes and not is_cliff
    return None if says_nothing else word


def _cheap(good: Sequence[Comparison], every: Sequence[Comparison], margin: float) -> Finding:
    """The word where some arms cost no more than the margin: the cheapest of `every` counts."""
    if better := _of({"better"}, good, margin):
        return Finding("supported", _cheapest(better))
    within = _of({"within"}, good, margin)
    if within and not any(may_be_better(comparison, margin) for comparison in every):
        return Finding("no_difference", _cheapest(within))
    return Finding("no_worse", _cheapest(good))


def _of(
    relations: frozenset[Relation] | set[Relation], comparisons: Iterable[Comparison], margin: float
) -> list[Comparison]:
    return [comparison for comparison in comparisons if relation(comparison, margin) in relations]


def _cost_more_than(margins: float, comparisons: Sequence[Comparison], margin: float) -> bool:
    """Whether each is shown to cost more than so many margins, or loses its runs."""
    return all(c.loses_runs or _ends_worse(c, margins * margin) for c in comparisons)


def _cheapest(comparisons: Sequence[Comparison]) -> Comparison | None:
    """The one with the least effect; one without an effect comes last."""
    infinity = float("inf")
    return min(comparisons, key=lambda c: infinity if c.effect is None else c.effect, default=None)
