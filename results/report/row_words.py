"""What a row's verdict says beside its position: word, effect, interval, band, conditions, as text.

The one place that knows which of these a verdict has: one without replicates has none of them, and every
field that is absent reads as "".
"""

from __future__ import annotations

from typing import Any

from results.plain import finite, loss, number
from results.report.blocks import Badge, Tone
from results.row_verdict import RowVerdict

_TONES: dict[str, Tone] = {
    "supported": "good",
    "no_difference": "good",
    "too_low": "bad",
    "too_high": "bad",
    "not_supported": "bad",
    "undecided": "unsure",
    "inside": "good",
    "below": "unsure",
    "above": "unsure",
    "outside": "unsure",
}


def badge(word: str) -> Badge:
    """A word of a verdict or a position with its sign."""
    return Badge(text=word.replace("_", " "), tone=_TONES.get(word, "plain"))


def word(row: RowVerdict) -> str:
    """supported | too_low | too_high | ...; "" when the verdict has no words."""
    return str(getattr(row, "verdict", "") or "")


def effect(row: RowVerdict) -> str:
    """Loss and percent against the best on common seeds; else what the best trial inside the row costs."""
    compared = comparison_effect(getattr(row, "comparison", None))
    if compared:
        return compared
    if row.cost is None:
        return "" if row.row.topic == "stability" else "not measured"
    if row.cost.difference == 0:
        return "none: it holds the best trial"
    share = "" if row.cost.percent is None else f" ({row.cost.percent:+.2f}%)"
    return f"{row.cost.difference:+.4f}{share}, one run"


def comparison_effect(comparison: Any) -> str:
    """`+0.0123 (+0.61%) on 5 seeds`; "" without a comparison."""
    effect = finite(getattr(comparison, "effect", None))
    if effect is None:
        return ""
    share = finite(comparison.percent(effect))
    percent = "" if share is None else f" ({share:+.2f}%)"
    seeds = f" on {comparison.pairs} seeds" if getattr(comparison, "design", "paired") == "paired" else ""
    return f"{effect:+.4f}{percent}{seeds}"


def interval(comparison: Any) -> str:
    """`+0.0100 to +0.0160 (95%)`; "" where there are too few pairs."""
    low, high = finite(getattr(comparison, "low", None)), finite(getattr(comparison, "high", None))
    if low is None or high is None:
        return ""
    level = finite(getattr(comparison, "level", None))
    return f"{low:+.4f} to {high:+.4f}" + ("" if level is None else f" ({100 * level:.4g}%)")


def row_interval(row: RowVerdict) -> str:
    return interval(getattr(row, "comparison", None))


def band(row: RowVerdict) -> str:
    """The values within the margin of the best: `1e-4 to 3e-4`, or names."""
    found = getattr(row, "band", None)
    if found is None:
        return ""
    if names := getattr(found, "names", ()):
        return " or ".join(names)
    low, high = finite(getattr(found, "low", None)), finite(getattr(found, "high", None))
    if low is None or high is None:
        return ""
    return number(low) if low == high else f"{number(low)} to {number(high)}"


def conditions(row: RowVerdict) -> str:
    """The row's own condition, and where this sweep differs from it."""
    said = str(getattr(row, "conditions_statement", "") or "")
    return f"{row.row.condition}. {said}".strip(". ") + "." if said else row.row.condition


def sentence(row: RowVerdict) -> str:
    """The judgement in words."""
    return row.claim or (f"Not tested: {row.reason}." if row.reason else "")


def best_loss(value: float | None) -> str:
    """A loss with its unit."""
    return "unknown" if value is None else f"{loss(value)} nats per token"
