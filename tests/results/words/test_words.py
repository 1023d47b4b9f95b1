"""Words from comparisons: which word, what it rests on, and that more data never weakens or turns it."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace
from random import Random
from typing import Any

import pytest

from results.comparison.arms import Replicate
from results.comparison.paired import Comparison, compare
from results.comparison.relation import relation
from results.words.word_rules import (
    COSTS,
    GOOD,
    ComparedValue,
    Finding,
    boundary_finding,
    may_be_better,
    region_finding,
    separate_rate_finding,
    value_finding,
    value_word,
)
from results.words.words import CLAIMS, STRONGER, Side, Word, common_word


def interval(low: float, high: float, **changed: Any) -> Comparison:
    """A comparison against a best of 2.0: the margin is 0.01."""
    found = Comparison(
        arm="a", other="b", pairs=5, effect=(low + high) / 2, low=low, high=high, level=0.99, other_loss=2.0
    )
    return replace(found, **changed)


WORSE, WITHIN, BETTER, OPEN = (
    interval(0.02, 0.03),
    interval(-0.005, 0.005),
    interval(-0.03, -0.02),
    interval(-0.02, 0.02),
)
NO_WORSE, NO_BETTER = interval(-0.02, 0.005), interval(-0.005, 0.02)


def at(side: Side, comparison: Comparison, *, refutes: bool = True) -> ComparedValue:
    return ComparedValue(1e-3, side, comparison, refutes)


# --- a row in which the best does not lie ------------------------------------------------------------


@pytest.mark.parametrize(
    ("found", "above", "below", "other"),
    [
        (WORSE, "too_high", "too_low", "not_supported"),
        (WITHIN, "no_difference", "no_difference", "no_difference"),
        (BETTER, "supported", "supported", "supported"),
        (NO_WORSE, "no_worse", "no_worse", "no_worse"),
        (OPEN, "undecided", "undecided", "undecided"),
        (NO_BETTER, "undecided", "undecided", "undecided"),
    ],
)
def test_a_word_follows_from_the_interval_and_the_side(found, above, below, other):
    assert [value_word(found, side=side) for side in ("above", "below", "other")] == [above, below, other]
    for side, word in (("above", above), ("below", below), ("other", other)):
        assert value_finding([at(side, found)]) == Finding(word, found)


def test_the_margin_is_the_users():
    assert value_word(WORSE, side="above", margin=0.02) == "no_difference"  # 0.04 of 2.0
    assert value_word(WITHIN, side="above", margin=0.001) == "undecided"


def test_a_row_is_refuted_only_when_its_retuned_value_costs_more_too():
    own = [at("above", WORSE)]
    assert value_finding(own, [interval(0.015, 0.02)]) == Finding("too_high", WORSE)
    assert value_finding(own, [OPEN]) == Finding("undecided", OPEN)
    assert value_finding(own, [WITHIN]) == Finding("no_difference", WITHIN)
    assert value_finding(own, [NO_WORSE]) == Finding("no_worse", NO_WORSE)
    assert value_finding(own, [BETTER]) == Finding("supported", BETTER)
    assert value_finding(own, [], is_refutable=False).word == "undecided"
    assert value_finding([], [WORSE]).word == "undecided", "it does not say which of its values costs"


def test_a_row_is_refuted_by_costs_beyond_what_retuning_may_save():
    """The interval's near end has to lie beyond so many margins, of every arm in the row."""
    clear, near = interval(0.021, 0.03), interval(0.012, 0.02)  # margin 0.01
    assert value_finding([at("above", clear)], least_cost=2.0) == Finding("too_high", clear)
    assert value_finding([at("above", near)], least_cost=2.0) == Finding("undecided", near)
    assert value_finding([at("above", clear)], [near], least_cost=1.5).word == "undecided"
    given = {"direction": "too_high", "best_is_beyond": False, "least_cost": 2.0}
    assert boundary_finding([at("above", clear)], **given).word == "supported"
    assert boundary_finding([at("above", near)], **given).word == "undecided"
    assert value_finding([at("above", WITHIN)], least_cost=2.0).word == "no_difference"


def test_the_cheapest_of_several_own_values_counts_but_a_cliff_counts_more():
    lossy = replace(OPEN, low=None, high=None, effect=None, lost=5, loses_runs=True)
    names = [at("other", WORSE), at("other", WITHIN)]
    assert value_finding(names) == Finding("no_difference", WITHIN)
    assert value_finding([at("other", WORSE), at("other", OPEN)]).word == "undecided"
    assert value_finding([at("other", WITHIN), at("other", NO_WORSE)]).word == "no_worse", "may be better yet"
    assert value_finding([at("below", WORSE), at("below", BETTER)]) == Finding("supported", BETTER)
    cliff = [at("above", WITHIN), at("above", lossy, refutes=False)]
    assert value_finding(cliff) == Finding("too_high", lossy)
    assert value_finding(cliff, [WITHIN]).word == "no_difference", "beside other settings it is none"
    far = [at("above", WITHIN), at("above", WORSE, refutes=False)]
    assert value_finding(far).word == "no_difference", "worse far from the best says nothing of the near end"
    assert value_finding([at("below", WORSE, refutes=False)]).word == "undecided"
    assert value_finding([]) == Finding("undecided", None)


def test_lost_runs_above_the_best_are_evidence_and_below_it_are_none():
    """The cliff lies to the right: four of four runs that end early make a rate too high, never too low."""
    ours = [Replicate(arm="row", seed=seed, eval_loss=None) for seed in range(4)]
    found = compare(
        "row", "best", ours + [Replicate(arm="best", seed=seed, eval_loss=2.0) for seed in range(4)]
    )
    assert found.loses_runs
    assert value_word(found, side="above") == "too_high"
    assert value_word(found, side="below") == "undecided"
    assert value_word(found, side="other") == "not_supported"
    boundary = boundary_finding([at("above", found)], direction="too_high", best_is_beyond=False)
    assert boundary.word == "supported"


# --- a row that holds the best ----------------------------------------------------------------------


def test_a_row_that_holds_the_best_is_tried_from_outside():
    assert region_finding([at("above", WORSE)]) == Finding("supported", WORSE)
    assert region_finding([at("below", WITHIN)]) == Finding("no_difference", WITHIN)
    assert region_finding([at("above", BETTER)]) == Finding("too_low", BETTER)
    assert region_finding([at("below", BETTER)]) == Finding("too_high", BETTER)
    assert region_finding([at("above", BETTER), at("below", BETTER)]).word == "not_supported"
    assert region_finding([at("above", OPEN)]) == Finding("undecided", OPEN)
    assert region_finding([at("above", NO_BETTER)]) == Finding("no_worse", NO_BETTER)
    assert region_finding([]) == Finding("undecided", None)


def test_arms_inside_alone_say_no_more_than_that_the_rows_value_costs_nothing():
    for inside in (WITHIN, NO_WORSE, BETTER):
        assert region_finding([], [inside]) == Finding("no_worse", inside)
    assert region_finding([], [WORSE]).word == "undecided"
    assert region_finding([at("above", OPEN)], [WITHIN]).word == "undecided"


def test_one_side_supports_a_range_once_the_other_can_be_no_better():
    above, below = at("above", WORSE), at("below", WITHIN)
    assert region_finding([below, above]) == Finding("supported", WORSE)  # right about the cliff
    assert region_finding([at("below", OPEN), above]).word == "undecided"
    assert region_finding([at("below", NO_WORSE), above]).word == "undecided"
    assert region_finding([at("below", NO_BETTER), above]).word == "supported"


def test_of_names_another_one_that_does_as_well_makes_no_difference():
    assert region_finding([at("other", WITHIN), at("other", WORSE)]) == Finding("no_difference", WITHIN)
    assert region_finding([at("other", NO_BETTER), at("other", WORSE)]).word == "no_worse"
    assert region_finding([at("other", WORSE), at("other", WORSE)]).word == "supported"


# --- boundaries and one rate for all ------------------------------------------------------------------


def boundary(found: Comparison, direction: str, side: Side, **options: Any) -> Word:
    is_beyond = side == ("below" if direction == "too_high" else "above")
    options = {"direction": direction, "best_is_beyond": is_beyond, **options}
    return boundary_finding([at(side, found)], **options).word


def test_a_boundary_is_right_when_its_value_is_worse_on_its_side():
    assert boundary(WORSE, "too_high", "above") == "supported"
    assert boundary(WITHIN, "too_high", "above") == "too_low"
    assert boundary(NO_WORSE, "too_high", "above") == "too_low"
    assert boundary(WORSE, "too_low", "below") == "supported"
    assert boundary(BETTER, "too_low", "below") == "too_high"
    assert boundary(WORSE, "too_high", "below") == "too_low"  # the best lies beyond
    assert boundary(OPEN, "too_high", "above") == "undecided"


def test_a_boundary_is_right_only_when_beyond_it_nothing_retuned_does_as_well():
    assert boundary(WORSE, "too_high", "above", beyond=[WORSE]) == "supported"
    assert boundary(WORSE, "too_high", "above", beyond=[OPEN]) == "undecided"
    assert boundary(WORSE, "too_high", "above", beyond=[WITHIN]) == "too_low"
    assert boundary(WORSE, "too_high", "above", is_supportable=False) == "undecided"


def test_where_the_best_lies_at_a_boundary_its_good_side_tells():
    def told(*found: Comparison) -> Finding:
        return boundary_finding([], (), found, direction="too_high", best_is_beyond=True)

    assert told(BETTER) == Finding("supported", BETTER)  # lower is better: the value is too high
    assert told(WORSE) == Finding("too_low", WORSE)
    assert told(WITHIN) == Finding("too_low", WITHIN)
    assert told(NO_BETTER).word == "too_low"
    assert told(OPEN) == Finding("undecided", OPEN)
    assert told(NO_WORSE).word == "undecided"
    assert told(WORSE, OPEN) == Finding("undecided", OPEN)


def test_a_separate_embedding_rate_is_judged_by_one_rate_for_all():
    found = (WORSE, WITHIN, BETTER, NO_BETTER, NO_WORSE, OPEN)
    words = [separate_rate_finding(comparison).word for comparison in found]
    assert words == ["supported", "no_difference", "not_supported", "no_worse", "undecided", "undecided"]


def test_rows_of_one_value_share_the_weakest_of_words_that_agree():
    assert common_word(["no_worse", "supported", "undecided"]) == "no_worse"
    assert common_word(["no_worse", "no_difference"]) == "no_worse"
    assert common_word(["supported", "no_difference"]) == "undecided"
    assert common_word(["no_worse", "too_high"]) == "undecided"
    assert common_word(["too_low", "too_low", "not_tested"]) == "too_low"
    assert common_word(["not_tested"]) == "not_tested"
    assert common_word(["not_tested", "undecided"]) == "undecided"


# --- more data ------------------------------------------------------------------------------------

EDGES = (-0.04, -0.02, -0.011, -0.009, 0.0, 0.009, 0.011, 0.02, 0.04)
LOOKS, CASES = 5, 2000


def history(draw: Random) -> list[Comparison]:
    """One comparison at more and more pairs: its interval never widens, and it only loses more runs."""
    truth = draw.choice((-0.03, -0.01, 0.0, 0.01, 0.03))
    lows, highs = sorted(draw.choices(EDGES, k=LOOKS)), sorted(draw.choices(EDGES, k=LOOKS), reverse=True)
    starts, loses = draw.randrange(4), draw.choice((LOOKS, LOOKS, LOOKS, 0, 1, 2))
    best_loses, is_lossy = draw.choice((LOOKS, LOOKS, LOOKS, 1)), draw.random() < 0.5
    found: list[Comparison] = []
    for look in range(LOOKS):
        now = interval(min(lows[look], truth - 1e-4), max(highs[look], truth + 1e-4), effect=truth)
        if look < starts:
            now = replace(now, low=None, high=None, pairs=0, effect=None if look == 0 else truth)
        before = found[-1] if found else None
        lost, other_lost = max(0, look - loses + 1), int(look >= best_loses)
        # What has its word runs no more, so that it loses no run afterwards.
        if before is not None and relation(before) in GOOD:
            lost, other_lost = before.lost, before.other_lost
        loses_runs = bool(before and before.loses_runs) or (is_lossy and lost >= 3 and not other_lost)
        found.append(replace(now, lost=lost, other_lost=other_lost, loses_runs=loses_runs))
    return found


def several(draw: Random, most: int) -> list[list[Comparison]]:
    return [history(draw) for _ in range(draw.randint(0, most))]


def check(number: int, found: list[Finding], rests: Callable[[Word, Comparison], bool]) -> None:
    """Words only get stronger, and the comparison beside a decided word is one that decided it."""
    for before, after in itertools.pairwise(found):
        stronger = STRONGER.get(before.word, frozenset())
        assert after.word == before.word or after.word in stronger, (number, before.word, after.word)
    for finding in found:
        if finding.word in CLAIMS:
            assert finding.comparison is not None, number
            assert rests(finding.word, finding.comparison), (number, finding)


def test_more_data_never_turns_the_word_of_a_value():
    def rests(word: Word, comparison: Comparison) -> bool:
        shown = relation(comparison)
        if word in ("supported", "no_difference"):
            return shown == ("better" if word == "supported" else "within")
        return shown in (GOOD if word == "no_worse" else COSTS)

    seen = set()
    for number in range(CASES):
        draw = Random(number)
        side: Side = draw.choice(("above", "below", "other"))
        own = [(found, side == "other" or draw.random() < 0.5) for found in several(draw, 3)]
        retuned, proved_at = several(draw, 2), draw.choice((0, 0, 2, LOOKS))
        findings = [
            value_finding(
                [at(side, found[look], refutes=refutes) for found, refutes in own],
                [found[look] for found in retuned],
                is_refutable=look >= proved_at,
            )
            for look in range(LOOKS)
        ]
        check(number, findings, rests)
        seen |= {finding.word for finding in findings}
    assert seen == CLAIMS | {"undecided"}


def test_more_data_never_turns_the_word_of_a_row_that_holds_the_best():
    seen = set()
    for number in range(CASES):
        draw = Random(number)
        is_name, inside = draw.random() < 0.4, several(draw, 2)
        sides: tuple[Side, ...] = ("other",) if is_name else ("above", "below")
        outside = [(found, draw.choice(sides)) for found in several(draw, 3)]

        def rests(word: Word, comparison: Comparison, has_outside: bool = bool(outside)) -> bool:
            shown = relation(comparison)
            match word:
                case "supported":
                    return shown in COSTS
                case "no_difference":
                    return shown == "within"
                case "no_worse":
                    return not may_be_better(comparison) if has_outside else shown in GOOD
            return shown == "better"

        findings = [
            region_finding([at(side, found[look]) for found, side in outside], [c[look] for c in inside])
            for look in range(LOOKS)
        ]
        check(number, findings, rests)
        seen |= {finding.word for finding in findings}
    assert seen == CLAIMS | {"undecided"}


def test_more_data_never_turns_the_word_of_a_boundary():
    seen = set()
    for number in range(CASES):
        draw = Random(number)
        direction, is_beyond = draw.choice(("too_high", "too_low")), draw.random() < 0.5
        side: Side = "above" if (direction == "too_high") != is_beyond else "below"
        own, beyond, good = several(draw, 2), several(draw, 0 if is_beyond else 2), several(draw, 2)
        proved_at = draw.choice((0, 0, 2, LOOKS))

        def rests(
            word: Word, comparison: Comparison, beyond: bool = is_beyond, by_good_side: bool = bool(good)
        ) -> bool:
            shown = relation(comparison)
            if beyond and by_good_side:
                return shown == "better" if word == "supported" else not may_be_better(comparison)
            if word == "supported":
                return shown in COSTS
            return shown in GOOD or (beyond and comparison.low is not None and comparison.low > 0.01)

        findings = [
            boundary_finding(
                [at(side, found[look]) for found in own],
                [found[look] for found in beyond],
                [found[look] for found in good],
                direction=direction,
                best_is_beyond=is_beyond,
                is_supportable=look >= proved_at,
            )
            for look in range(LOOKS)
        ]
        check(number, findings, rests)
        seen |= {finding.word for finding in findings}
    assert seen == {"supported", "too_low", "too_high", "undecided"}


def test_more_data_never_turns_the_word_of_a_separate_rate():
    for number in range(CASES):
        found = history(Random(number))
        check(number, [separate_rate_finding(one_rate) for one_rate in found], lambda word, comparison: True)
