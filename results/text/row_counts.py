"""How many guideline rows there are, counted in one way everywhere: tested, on stability, and not tested."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from files_and_text.numbers import plural
from results.verdict.row_verdict import RowVerdict


@dataclass(frozen=True, kw_only=True)
class RowCounts:
    """Every row of the study is in one of the three."""

    tested: int
    """Rows whose value the sweep or its confirmation measured: those with a cost or a word."""
    stability: int
    """Rows on stability whose signs trials showed: a hint and no test."""
    not_tested: int

    @property
    def all(self) -> int:
        """Of the three kinds together."""
        return self.tested + self.stability + self.not_tested


def row_counts(rows: Sequence[RowVerdict]) -> RowCounts:
    """Of a verdict's rows."""
    shown = [row for row in rows if row.is_tested]
    signs = sum(row.row.topic == "stability" for row in shown)
    return RowCounts(tested=len(shown) - signs, stability=signs, not_tested=len(rows) - len(shown))


def counts_text(rows: Sequence[RowVerdict]) -> str:
    """`66 guideline rows: 18 tested, 1 on stability, 47 not tested`."""
    counts = row_counts(rows)
    parts = [f"{counts.tested} tested"]
    parts += [f"{counts.stability} on stability"] if counts.stability else []
    parts += [f"{counts.not_tested} not tested"] if counts.not_tested else []
    return f"{plural(counts.all, 'guideline row')}: {', '.join(parts)}"
