"""Pairs of guideline rows that cannot both be right."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from files_and_text.numbers import number, number_range
from search_spaces.guidelines import Guidelines
from search_spaces.rows import GuidelineRow


@dataclass(frozen=True, kw_only=True)
class Disagreement:
    """Two rows that apply to one run and have no common value, or one of which warns of the other's value."""

    quantity: str
    """What both are about, in one unit."""
    first: GuidelineRow
    second: GuidelineRow
    first_value: str
    second_value: str
    where: str = ""
    """For which runs; "" for all that both apply to."""

    @property
    def between_documents(self) -> bool:
        """Whether the two rows come from different documents."""
        return self.first.source.document != self.second.source.document


@dataclass(frozen=True)
class _Claim:
    row: GuidelineRow
    low: float
    high: float


def disagreements(guidelines: Guidelines) -> list[Disagreement]:
    """Every pair of rows that disagree, in the order of the rows.

    An embedding rate is compared as a ratio to the default main rate (the row method.qlora). A special case
    ("complex tasks: lower") counts as disagreeing with the general rule: the data do not tell the two apart.
    """
    rows = list(guidelines.values())
    main_rate = guidelines["method.qlora"].high or 2e-4
    found = list(_without_common_value("learning_rate", _claims(rows, {"learning_rate": 1.0})))
    scale = {"embedding_lr_ratio": 1.0, "embedding_learning_rate": main_rate}
    quantity = f"embedding_lr_ratio (of a main rate of {number(main_rate)})"
    found += _without_common_value(quantity, _claims(rows, scale))
    found += _without_common_value("warmup_ratio", _claims(rows, {"warmup_ratio": 1.0}))
    found += _warmup_in_short_runs(rows)
    found += _other_schedulers(rows)
    return found


def _claims(rows: Iterable[GuidelineRow], divisors: dict[str, float]) -> list[_Claim]:
    return [
        _Claim(row, row.low / divisors[row.parameter], row.high / divisors[row.parameter])
        for row in rows
        if row.parameter in divisors and row.low is not None and row.high is not None
    ]


def _without_common_value(quantity: str, claims: list[_Claim]) -> Iterator[Disagreement]:
    for one, two in itertools.combinations(claims, 2):
        warnings = [claim for claim in (one, two) if claim.row.direction is not None]
        if not one.row.when.overlaps(two.row.when) or len(warnings) == 2:
            continue
        # 1e-9: 5e-5 / 2e-4 must equal 0.25, whatever the rounding.
        common = max(one.low, two.low) <= min(one.high, two.high) * (1 + 1e-9)
        # A warning disagrees with rows that share its value.
        if common == bool(warnings):
            yield Disagreement(
                quantity=quantity,
                first=one.row,
                second=two.row,
                first_value=_value_of(one),
                second_value=_value_of(two),
            )


def _value_of(claim: _Claim) -> str:
    text = number_range(claim.low, claim.high)
    return text if claim.row.direction is None else f"{text} is {claim.row.direction.replace('_', ' ')}"


def _warmup_in_short_runs(rows: list[GuidelineRow]) -> Iterator[Disagreement]:
    """In a short run, a minimum number of warmup steps is more than another row's maximum share."""
    for share, least in itertools.product(rows, rows):
        if share.parameter != "warmup_ratio" or least.parameter != "warmup_steps":
            continue
        if not share.high or least.low is None:
            continue
        length = least.low / share.high
        if (share.when.max_steps_low or 1) < length:
            yield Disagreement(
                quantity="warmup_steps",
                first=share,
                second=least,
                first_value=f"at most {number(share.high)} of the run",
                second_value=f"at least {number(least.low)} steps",
                where=f"runs under {length:.0f} steps",
            )


def _other_schedulers(rows: list[GuidelineRow]) -> Iterator[Disagreement]:
    named = [row for row in rows if row.choices]
    for one, two in itertools.combinations(named, 2):
        if one.when.overlaps(two.when) and not set(one.choices) & set(two.choices):
            yield Disagreement(
                quantity="lr_scheduler_type",
                first=one,
                second=two,
                first_value=" or ".join(one.choices),
                second_value=" or ".join(two.choices),
            )
