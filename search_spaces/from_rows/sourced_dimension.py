"""A dimension together with the rows that its values came from, and what all dimensions compute from rows."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace

from files_and_text.numbers import six_digits
from search_spaces.dimension import Dimension, Value
from search_spaces.guidelines import Guidelines
from search_spaces.rows import GuidelineRow

# Factors by which a range is wider than the rows' own; the reasons are in build_space.py.
DEFAULT_WIDEN = {
    "learning_rate": 5.0,
    "embedding_lr_ratio": 4.0,
    "warmup_ratio": 2.0,
    "per_device_train_batch_size": 2.0,
}
SMALL_MODEL = 8.8e9
"""Up to so many parameters the main rate is widened farther upwards: 8B with the tables' tolerance."""
UPWARDS_FOR_SMALL = 10.0
BEST_AT_THE_LAST = (
    "published sweeps of Llama 3.2 1B and Qwen3 4B had their best at 1e-3, the last rate tried; on Llama 3.1 "
    "8B it ties with 3e-4 at rank 64"
)
"""Why: LoRA on tulu3, 780 steps; the page is results/reference/published-lora-sft.md."""
ONE_RATE_FOR_ALL = 1.0
"""The embedding_lr_ratio at which embeddings take the main learning rate."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """The kind of run that a space is built for."""

    scenario: str
    model_size: float
    """In parameters."""
    max_steps: int
    train_embeddings: bool
    method: str

    def rows(self, tables: Guidelines, parameter: str) -> list[GuidelineRow]:
        """The rows about one parameter that apply to this run."""
        return [row for row in tables.applying(**asdict(self)) if row.parameter == parameter]


@dataclass(frozen=True, kw_only=True)
class RowValue:
    """A value, and the rows that give it."""

    value: Value
    rows: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class SourcedDimension:
    """A dimension as the rows give it, as it will be in the space, and which values the rows give."""

    from_rows: Dimension
    in_space: Dimension | None = None
    """`from_rows` within the user's range and with its condition; None where nothing changes it."""
    default_rows: tuple[str, ...] = ()
    """The rows that give the default of `from_rows`."""
    row_values: tuple[RowValue, ...] = ()
    """The rows' own values, in the order worth trying; the default may be among them."""
    row_minimums: tuple[RowValue, ...] = ()
    """The least values that rows ask for, which are no values to try by themselves."""
    tried_first: tuple[Value, ...] = ()
    """The user's own, each tried with everything else at the default."""
    embedding_rate: float | None = None
    """For embedding_lr_ratio: the learning rate that its default divides by the main one."""
    notes: tuple[str, ...] = ()
    about_high: str = ""
    """The end of `from_rows`' note that holds only while the upper end is the rows' own."""

    @property
    def final(self) -> Dimension:
        """The dimension of the search space."""
        return self.in_space or self.from_rows

    @property
    def is_overridden(self) -> bool:
        """Whether the user's range differs from the rows' own."""
        return replace(self.final, active_when=None) != self.from_rows

    @property
    def given_ends(self) -> tuple[str, ...]:
        """Which of `low` and `high` of the range are the user's and not the rows' own."""
        if self.final.kind == "categorical" or self.from_rows.kind == "categorical":
            return ()
        ends = ("low", "high")
        return tuple(end for end in ends if getattr(self.final, end) != getattr(self.from_rows, end))


def with_numbers(rows: Iterable[GuidelineRow]) -> list[GuidelineRow]:
    """The rows that give a number."""
    return [row for row in rows if row.low is not None]


def span(rows: Iterable[GuidelineRow], default: tuple[float, float] | None = None) -> tuple[float, float]:
    """The lowest and the highest number that the rows give."""
    ends = [(row.low, row.high) for row in rows if row.low is not None and row.high is not None]
    if not ends and default is not None:
        return default
    return min(low for low, _ in ends), max(high for _, high in ends)


def rows_with(rows: Iterable[GuidelineRow], value: float) -> tuple[str, ...]:
    """Ids of the rows whose range contains a value."""
    return tuple(
        row.id
        for row in rows
        if row.low is not None and row.high is not None and row.low <= value <= row.high
    )


def row_ends(rows: Iterable[GuidelineRow], main_rate: float | None = None) -> tuple[RowValue, ...]:
    """Both ends of every row; a value that several rows give names them all.

    With `main_rate` the ends of embedding_learning_rate rows become ratios to it.
    """
    found: dict[float, list[str]] = {}
    for row in rows:
        is_rate = row.parameter == "embedding_learning_rate"
        for end in (row.high, row.low):
            if end is None:
                continue
            ids = found.setdefault(end / main_rate if is_rate and main_rate else end, [])
            if row.id not in ids:
                ids.append(row.id)
    return tuple(RowValue(value=value, rows=tuple(ids)) for value, ids in found.items())


def widened(
    name: str,
    rows: list[GuidelineRow],
    span: tuple[float, float],
    factor: float,
    *,
    default: float,
    factor_above: float | None = None,
    limits: tuple[float, float] = (0.0, float("inf")),
    include: float | None = None,
    note: str = "",
) -> Dimension:
    """A log-scaled dimension from `factor` below the span to `factor` above it, within `limits`.

    `factor_above`: instead of `factor` above it.
    """
    low, high = span
    above = factor if factor_above is None else factor_above
    wider = (max(six_digits(low / factor), limits[0]), min(six_digits(high * above), limits[1]))
    ends = [*wider, low, high, default, default if include is None else include]
    return Dimension(
        name=name,
        kind="float",
        low=min(ends),
        high=max(ends),
        log=True,
        guideline_low=low,
        guideline_high=high,
        default=default,
        rows=tuple(row.id for row in rows),
        note=note,
    )
