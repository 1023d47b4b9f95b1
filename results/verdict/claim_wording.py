"""A row's word and what it rests on, as a sentence."""

from __future__ import annotations

from files_and_text.numbers import plural
from results.verdict.band import RATES, band_text
from results.verdict.row_verdict import RowVerdict
from results.verdict.statistics import Comparison


def word_text(row: RowVerdict) -> str:
    """`too low` for `too_low`."""
    return row.verdict.replace("_", " ")


def effect_text(comparison: Comparison | None) -> str:
    """`+0.61% (0.45% to 0.80%)`: the arm's loss against the best, with its interval; "" without a pair."""
    if comparison is None or comparison.effect is None:
        return ""
    effect = comparison.percent(comparison.effect)
    if effect is None:
        return f"{comparison.effect:+.4f}"
    low, high = comparison.percent(comparison.low), comparison.percent(comparison.high)
    interval = "" if low is None or high is None else f" ({low:+.2f}% to {high:+.2f}%)"
    return f"{effect:+.2f}%{interval}"


def claim_sentence(row: RowVerdict, margin: float) -> str:
    """The word, the effect in loss and percent, the interval, the band, and what to do at an edge."""
    parts = [f"Verdict: {word_text(row)}{_because(row.comparison, margin)}."]
    if row.band is not None and row.position != "not_tested":
        band = row.band
        parts.append(f"Within {100 * margin:g}% of the best: {row.row.parameter} {band_text(band)}.")
        if band.advice and row.row.parameter in RATES:
            parts.append(f"{band.advice[0].upper()}{band.advice[1:]}.")
    if row.edge:
        parts.append(f"The best lies at the {row.edge} end of what was searched: widen it.")
    if row.conditions_statement.startswith("Conditions differ"):
        parts.append(row.conditions_statement)
    return " ".join(parts)


def _because(comparison: Comparison | None, margin: float) -> str:
    if comparison is None:
        return "; without replicates that bear on it no more can be said"
    said = []
    if comparison.effect is not None:
        side = "above" if comparison.effect >= 0 else "below"
        share = comparison.percent(abs(comparison.effect))
        shown = "" if share is None else f" ({share:.2f}%)"
        said.append(
            f"{comparison.arm} ended {abs(comparison.effect):.4f}{shown} {side} {comparison.other}"
            + (f" on {plural(comparison.pairs, 'common seed')}" if comparison.design == "paired" else "")
        )
    if comparison.low is not None and comparison.high is not None:
        said.append(
            f"{100 * comparison.level:.4g}% interval {comparison.low:+.4f} to {comparison.high:+.4f}, "
            f"margin {100 * margin:g}%"
        )
    elif comparison.effect is not None:
        paired = comparison.design == "paired"
        said.append("too few for an interval" if paired else "no config was run twice, so noise is unknown")
    if comparison.lost:
        said.append(
            f"{plural(comparison.lost, 'run')} of {comparison.arm} ended early where the other finished"
        )
    if comparison.other_lost:
        said.append(f"{plural(comparison.other_lost, 'run')} of {comparison.other} ended early")
    return f": {'; '.join(said)}" if said else "; no pair of runs finished"
