"""Guideline rows that say the same thing about the same hyperparameter, as one line with its sources."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from files_and_text.choices import SCHEDULERS_WITHOUT_WARMUP
from files_and_text.plain_values import finite
from results.answer.answer import Gap, ParameterAnswer, TableValue
from results.comparison.paired import Comparison
from results.parameter_order import in_order
from results.sweep_result import TrialResult
from results.verdict.row_values import BASE_DIMENSION, is_close, position_of
from results.verdict.row_verdict import RowVerdict
from results.words.words import common_word
from search_spaces import GuidelineRow
from search_spaces.dimension import Value

_WARMUP = ("warmup_ratio", "warmup_steps")
_Key = tuple[str, float | None, float | None, tuple[str, ...], str | None]


@dataclass(frozen=True, kw_only=True)
class _Default:
    """The guideline default beside the best."""

    number: int | None
    """Of its trial; None where it was not tried."""
    rows: Sequence[str]
    differs_in: Sequence[str]
    """Searched hyperparameters in which it is not the best."""


def parameter_answers(
    rows: Sequence[RowVerdict], best: TrialResult | None, default: TrialResult | None
) -> list[ParameterAnswer]:
    """One entry for each hyperparameter of a row that the sweep tested; stability rows have none."""
    own = _Default(
        number=None if default is None else default.number,
        rows=() if default is None else default.rows,
        differs_in=_differences(best, default),
    )
    tested = [row for row in rows if row.is_tested and row.row.topic != "stability" and row.row.parameter]
    values = {} if best is None else best.values
    found = []
    for name in in_order([row.row.parameter or "" for row in tested]):
        ours = [row for row in tested if row.row.parameter == name]
        value = values.get(name)
        found.append(
            ParameterAnswer(
                parameter=name,
                best=value,
                unused_beside=_unused_beside(name, values),
                tables=_table_values(ours, value, own),
                edge=next((row.edge for row in ours if row.edge), ""),
            )
        )
    return found


def gap_of(comparison: Comparison | None) -> Gap | None:
    """The paired difference of two arms as a gap; None without a common seed on which both finished."""
    if comparison is None or comparison.effect is None:
        return None
    return Gap(
        nats=comparison.effect,
        percent=comparison.percent(comparison.effect),
        low=comparison.low,
        high=comparison.high,
        low_percent=comparison.percent(comparison.low),
        high_percent=comparison.percent(comparison.high),
        seeds=comparison.pairs if comparison.design == "paired" else 0,
    )


def _unused_beside(name: str, values: Mapping[str, Value]) -> str:
    scheduler = values.get("lr_scheduler_type")
    has_none = name in _WARMUP and name not in values and scheduler in SCHEDULERS_WITHOUT_WARMUP
    return str(scheduler) if has_none else ""


def _table_values(rows: Sequence[RowVerdict], best: Value | None, default: _Default) -> list[TableValue]:
    groups: dict[_Key, list[RowVerdict]] = {}
    for row in rows:
        groups.setdefault(_key(row.row), []).append(row)
    found = [_table_value(group, best, default) for group in groups.values()]
    return sorted(found, key=lambda value: (value.is_warning, not value.is_default, -len(value.rows)))


def _key(row: GuidelineRow) -> _Key:
    return row.parameter or "", row.low, row.high, tuple(sorted(row.choices)), row.direction


def _table_value(group: Sequence[RowVerdict], best: Value | None, default: _Default) -> TableValue:
    row = group[0].row
    position = "not_tested" if best is None else position_of(row, best)
    return TableValue(
        parameter=row.parameter or "",
        text=row.value_text,
        low=row.low,
        high=row.high,
        choices=row.choices,
        is_warning=row.direction is not None,
        is_default=any(found.row.id in default.rows for found in group),
        rows=tuple(found.row.id for found in group),
        position=position,
        ratio=_ratio(row, best, position),
        cost=_cost(group, position, default),
        word=common_word([found.word for found in group]),
    )


def _ratio(row: GuidelineRow, best: Value | None, position: str) -> float | None:
    value = finite(best)
    end = {"above": row.high, "below": row.low}.get(position)
    return value / end if value and end else None


def _differences(best: TrialResult | None, default: TrialResult | None) -> list[str]:
    """Searched hyperparameters in which the guideline default is not the best."""
    if best is None or default is None:
        return []
    names = {**best.params, **default.params}
    return [name for name in names if not is_close(best.values.get(name), default.values.get(name))]


def _cost(group: Sequence[RowVerdict], position: str, default: _Default) -> Gap | None:
    """On common seeds where there are some, else the sweep's best single run with that value; nothing where
    the best holds the value. None for rows without a value.

    Beside a decided word it is the cost in the comparison that decided it."""
    row = group[0].row
    if row.low is None and not row.choices:
        return None
    if position == "inside" and row.direction is None:
        return Gap(nats=0.0, percent=0.0)
    costs = [cost for found in group if (cost := found.measurement.cost) is not None]
    cheapest = min(costs, key=lambda cost: cost.difference, default=None)
    runs_again = cheapest is None or cheapest.trial == default.number
    for found in sorted(group, key=lambda found: found.word == "undecided"):
        # Undecided, a default that is worse does not say what this value costs alone.
        says_it = not found.by_default or found.word != "undecided" or runs_again
        if says_it and (gap := gap_of(found.comparison)) is not None:
            own = (row.parameter, BASE_DIMENSION.get(row.parameter or ""))
            others = tuple(name for name in default.differs_in if name not in own)
            return replace(gap, differs_in=others if found.by_default else ())
    if cheapest is None:
        return None
    return Gap(
        nats=cheapest.difference,
        percent=cheapest.percent,
        trial=cheapest.trial,
        differs_in=cheapest.differs_in,
    )
