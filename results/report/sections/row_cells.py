"""A row's verdict as text for table cells: word, effect, interval, band, conditions; "" if missing."""

from __future__ import annotations

from files_and_text.numbers import loss, plural
from results.comparison.paired import Comparison
from results.report.blocks import Badge, Tone
from results.text.comparisons import WITH_ALL, band_text, is_joint, model_effect_text
from results.text.conditions import shown_conditions
from results.text.gaps import percent_text
from results.verdict.arm_comparisons import ArmComparisons
from results.verdict.row_verdict import RowVerdict

_TONES: dict[str, Tone] = {
    "supported": "good",
    "no_worse": "good",
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
    """A verdict word or a position as a badge."""
    return Badge(text=word.replace("_", " "), tone=_TONES.get(word, "plain"))


def effect(row: RowVerdict) -> str:
    """Loss and percent against the best on common seeds; without them, the cost of the row's best trial."""
    compared, ends = comparison_effect(row.comparison), interval(row.comparison)
    if compared and not is_joint(row):
        together = f", {WITH_ALL}" if row.by_default else ""
        return f"{compared}{together}; " + (f"interval {ends}" if ends else "too few for an interval")
    cost, model = row.measurement.alone or row.measurement.cost, row.measurement.effect
    if model is not None and (cost is None or cost.differs_in):
        return model_effect_text(model)
    if cost is None:
        return "" if row.row.topic == "stability" else "not measured"
    if cost.difference == 0:
        return "none: it holds the best trial"
    if cost.differs_in:
        return "not measured alone"
    share = "" if cost.percent is None else f" ({percent_text(cost.percent)})"
    return f"{cost.difference:+.4f}{share}, one run"


def comparison_effect(comparison: Comparison | None) -> str:
    """`+0.0123 (+0.61%) on 5 seeds`; "" without a pair."""
    if comparison is None or comparison.effect is None:
        return ""
    share = comparison.percent(comparison.effect)
    percent = "" if share is None else f" ({percent_text(share)})"
    seeds = f" on {plural(comparison.pairs, 'seed')}" if comparison.design == "paired" else ""
    return f"{comparison.effect:+.4f}{percent}{seeds}"


def interval(comparison: Comparison | None) -> str:
    """`+0.0100 to +0.0160 (95%)`; "" where there are too few pairs."""
    if comparison is None or comparison.low is None or comparison.high is None:
        return ""
    return f"{comparison.low:+.4f} to {comparison.high:+.4f} ({100 * comparison.level:.4g}%)"


def band(row: RowVerdict) -> str:
    """The values within the margin of the best, and those beyond it."""
    return "" if row.band is None else band_text(row.band)


def conditions(row: RowVerdict) -> str:
    """The row's own condition, and where this sweep differs from it."""
    shown = shown_conditions(row.measurement.conditions)
    differing = [f"{c.name} {c.here} here, {c.row} in the row" for c in shown if c.differs]
    own = row.row.condition.rstrip(".")
    return f"{own}. Differs: {'; '.join(differing)}" if differing else own


def arm_cells(found: ArmComparisons) -> list[tuple[str, ...]]:
    """A row for each arm that was run again: name, role, runs, mean, spread, effect, interval."""
    cells: list[tuple[str, ...]] = []
    for summary in found.arms:
        comparison = found.comparisons.get(summary.arm.name)
        cells.append(
            (
                summary.arm.name,
                summary.arm.role.replace("_", " "),
                f"{summary.finished} of {summary.runs}",
                loss(summary.mean),
                "" if summary.spread is None else f"{summary.spread:.4f}",
                "the reference" if comparison is None else comparison_effect(comparison) or "no common seed",
                interval(comparison),
            )
        )
    return cells
