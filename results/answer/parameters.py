"""Guideline rows that say the same thing about the same hyperparameter, as one line with its sources."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from files_and_text.choices import SCHEDULERS_WITHOUT_WARMUP
from files_and_text.plain_values import finite
from results.answer.answer import Gap, ParameterAnswer, TableValue
from results.comparison.paired import Comparison
from results.effects.value_effects import Effect
from results.parameter_order import in_order
from results.sweep_result import TrialResult
from results.verdict.measure import Cost
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
        contradicted=comparison.contradicted,
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
    """What the value costs by itself: on common seeds where there are some, else of the best single run that
    differs from the best in this value alone, else by the model; nothing where the best holds the value.

    With none of them it is what the cheapest run with the value costs, and `differs_in` names what else that
    has in it. Beside a decided word it is the cost in the comparison that decided it. None for rows without a
    value.
    """
    row = group[0].row
    if row.low is None and not row.choices:
        return None
    if position == "inside" and row.direction is None:
        return Gap(nats=0.0, percent=0.0)
    is_open = ("undecided", "not_tested")
    decided = [found for found in group if not found.by_default or found.word not in is_open]
    for found in sorted(decided, key=lambda found: found.word == "undecided"):
        if (gap := _compared(found, default)) is not None:
            return gap
    measured = [found.measurement for found in group]
    if own := [cost for each in measured if (cost := each.by_itself) is not None]:
        return _by_itself(own)
    runs = [run for each in measured if (run := each.cost) is not None]
    cheapest = min(runs, key=lambda run: run.difference, default=None)
    if cheapest is None or cheapest.trial == default.number:
        # Undecided, a default that is worse does not say what this value costs alone.
        gaps = (_compared(found, default) for found in group)
        if (gap := next((gap for gap in gaps if gap is not None), None)) is not None:
            return gap
    return None if cheapest is None else _of_run(cheapest)


def _compared(found: RowVerdict, default: _Default) -> Gap | None:
    """Of the comparison on common seeds; that of the default or of another trial has its other values in
    it."""
    gap = gap_of(found.comparison)
    if gap is not None and found.by_trial is not None:
        return replace(gap, trial=found.by_trial, differs_in=found.differs_in)
    if gap is None or not found.by_default:
        return gap
    own = (found.row.parameter, BASE_DIMENSION.get(found.row.parameter or ""))
    return replace(gap, differs_in=tuple(name for name in default.differs_in if name not in own))


def _by_itself(found: Sequence[Cost | Effect]) -> Gap:
    """Runs before the model, the cheapest first."""
    if runs := [cost for cost in found if isinstance(cost, Cost)]:
        return _of_run(min(runs, key=lambda cost: cost.difference))
    return gap_of_effect(
        min((cost for cost in found if isinstance(cost, Effect)), key=lambda cost: cost.nats)
    )


def gap_of_effect(effect: Effect) -> Gap:
    """What the model says as a gap."""
    return Gap(
        nats=effect.nats,
        percent=effect.percent,
        low=effect.low,
        high=effect.high,
        low_percent=effect.low_percent,
        high_percent=effect.high_percent,
        in_model=effect.trials,
    )


def _of_run(cost: Cost) -> Gap:
    return Gap(nats=cost.difference, percent=cost.percent, trial=cost.trial, differs_in=cost.differs_in)
