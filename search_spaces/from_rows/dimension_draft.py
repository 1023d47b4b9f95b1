"""A dimension between the tables and the space: the rows that hold, their range and values."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from files_and_text.numbers import six_digits
from search_spaces.guidelines import Guidelines
from search_spaces.rows import GuidelineRow
from search_spaces.space import Dimension, Value

# Factors beyond the tables' own ends; the reasons stand in build.py.
DEFAULT_WIDEN = {
    "learning_rate": 5.0,
    "embedding_lr_ratio": 4.0,
    "warmup_ratio": 2.0,
    "per_device_train_batch_size": 2.0,
}
ONE_RATE_FOR_ALL = 1.0


@dataclass(frozen=True, kw_only=True)
class Run:
    """What kind of run a space is for."""

    scenario: str
    model_size: float
    """In parameters."""
    max_steps: int
    train_embeddings: bool
    method: str


@dataclass(frozen=True, kw_only=True)
class Proposal:
    """A value that a row gives of its own."""

    value: Value
    rows: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Draft:
    """A dimension on its way: as the tables give it, and as it will be in the space."""

    tables: Dimension
    final: Dimension
    """`tables` within the user's range and with its condition."""
    default_rows: tuple[str, ...] = ()
    """The rows whose value the tables' default is."""
    proposals: tuple[Proposal, ...] = ()
    """The tables' own values, in the order worth trying; the default may be among them."""
    embedding_rate: float | None = None
    """Of embedding_lr_ratio: the rate that its default divides by the main rate."""
    overridden: bool = False
    notes: tuple[str, ...] = ()


def rows_for(tables: Guidelines, run: Run) -> list[GuidelineRow]:
    return tables.applying(
        scenario=run.scenario,
        model_size=run.model_size,
        max_steps=run.max_steps,
        method=run.method,
        train_embeddings=run.train_embeddings,
    )


def with_numbers(rows: Iterable[GuidelineRow]) -> list[GuidelineRow]:
    return [row for row in rows if row.low is not None]


def span(rows: Iterable[GuidelineRow], default: tuple[float, float] | None = None) -> tuple[float, float]:
    lows, highs = [], []
    for row in rows:
        if row.low is not None and row.high is not None:
            lows.append(row.low)
            highs.append(row.high)
    if not lows and default is not None:
        return default
    return min(lows), max(highs)


def holding(rows: Iterable[GuidelineRow], value: float) -> tuple[str, ...]:
    return tuple(
        row.id
        for row in rows
        if row.low is not None and row.high is not None and row.low <= value <= row.high
    )


def ends_as_proposals(rows: Iterable[GuidelineRow], main_rate: float | None = None) -> tuple[Proposal, ...]:
    """Both ends of every row; a value that several rows give names them all.

    With `main_rate` the ends of embedding_learning_rate rows become ratios to it.
    """
    found: dict[float, list[str]] = {}
    for row in rows:
        for end in (row.high, row.low):
            if end is None:
                continue
            derived = main_rate is not None and row.parameter == "embedding_learning_rate"
            ids = found.setdefault(end / main_rate if derived and main_rate else end, [])
            if row.id not in ids:
                ids.append(row.id)
    return tuple(Proposal(value=value, rows=tuple(ids)) for value, ids in found.items())


def widened(
    name: str,
    rows: list[GuidelineRow],
    span: tuple[float, float],
    factor: float,
    *,
    default: float,
    log: bool,
    limits: tuple[float, float] = (0.0, float("inf")),
    include: float | None = None,
    note: str = "",
) -> Dimension:
    low, high = span
    ends = [
        max(six_digits(low / factor), limits[0]),
        min(six_digits(high * factor), limits[1]),
        low,
        high,
        default,
    ]
    if include is not None:
        ends.append(include)
    return Dimension(
        name=name,
        kind="float",
        low=min(ends),
        high=max(ends),
        log=log,
        guideline_low=low,
        guideline_high=high,
        default=default,
        rows=tuple(row.id for row in rows),
        note=note,
    )
