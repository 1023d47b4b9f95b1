"""How values and rows are written for a reader."""

from __future__ import annotations

from search_spaces.rows import GuidelineRow


def short(value: float) -> str:
    """A number as the documents write it: 2e-4, 0.25, 2000."""
    if 0 < abs(value) < 0.01:
        digits, _, exponent = f"{value:.2e}".partition("e")
        return f"{float(digits):g}e{int(exponent)}"
    return f"{value:.4g}" if abs(value) < 10_000 else f"{value:g}"


def says(low: float, high: float) -> str:
    """A value, or a range of them."""
    return short(low) if low == high else f"{short(low)} to {short(high)}"


def row_says(row: GuidelineRow) -> str:
    """A row's own value in words: a number, a range, names, "too high"; "" when it gives none."""
    if row.choices:
        return " or ".join(row.choices)
    text = "" if row.low is None or row.high is None else says(row.low, row.high)
    return text if row.direction is None else f"{text} {row.direction.replace('_', ' ')}".strip()
