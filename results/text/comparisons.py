"""The effect of one arm against another, bands, and what a row's word rests on."""

from __future__ import annotations

from files_and_text.numbers import number, plural
from files_and_text.plain_values import finite
from results.comparison.paired import Comparison
from results.effects.value_effects import Effect
from results.text.conditions import conditions_statement
from results.text.gaps import CONTRADICTED
from results.text.values import conjunction, sentence
from results.verdict.band import Band
from results.verdict.row_verdict import RowVerdict

WITH_ALL = "with all table values"
"""Behind the cost of the guideline default where that decided the word of one of its values."""
RATES = ("learning_rate", "embedding_learning_rate", "embedding_lr_ratio")
"""Hyperparameters whose loss is flat on the low side and a cliff on the high side."""


def word_text(row: RowVerdict) -> str:
    """`too low` for `too_low`."""
    return row.word.replace("_", " ")


def effect_text(comparison: Comparison | None) -> str:
    """`+0.61% (0.45% to 0.80%)`: the arm's loss against the best, with its interval; "" without a pair."""
    if comparison is None or comparison.effect is None:
        return ""
    effect = comparison.percent(comparison.effect)
    if effect is None:
        return f"{comparison.effect:+.4f}"
    low, high = comparison.percent(comparison.low), comparison.percent(comparison.high)
    doubt = f"; {CONTRADICTED}" if comparison.contradicted else ""
    interval = "" if low is None or high is None else f" ({_signed(low)} to {_signed(high)}{doubt})"
    return f"{_signed(effect)}{interval}"


def _signed(percent: float) -> str:
    """`+0.61%`; never `-0.00%`."""
    return f"{round(percent, 2) + 0.0:+.2f}%"


def is_joint(row: RowVerdict) -> bool:
    """Whether all that was run again is the guideline default, whose cost is that of all the tables' values
    and left the row undecided: it says nothing of the row alone."""
    return row.by_default and row.word == "undecided"


def row_effect_text(row: RowVerdict) -> str:
    """The effect of the arm that tests the row; "" where that is of all the tables' values alone."""
    if is_joint(row):
        return ""
    effect = effect_text(row.comparison)
    return f"{effect}, {WITH_ALL}" if effect and row.by_default else effect


def cost_text(row: RowVerdict) -> str:
    """`+0.0123 (0.50%)`, `+0.0123 (0.50%; -0.10% to 1.10%, model)`, or that it was not measured."""
    measured = row.measurement
    cost, effect = measured.alone or measured.cost, measured.effect
    if cost is not None and (cost.difference == 0 or not cost.differs_in):
        return f"{cost.difference:+.4f}{'' if cost.percent is None else f' ({cost.percent:.2f}%)'}"
    if effect is not None:
        return model_effect_text(effect)
    if cost is None:
        return "" if row.row.topic == "stability" else "not measured"
    return "not measured alone"


def model_effect_text(effect: Effect) -> str:
    """`+0.0123 (0.50%; -0.10% to 1.10%, model)`; in nats where there are no percents."""
    if effect.percent is None or effect.low_percent is None or effect.high_percent is None:
        return f"{effect.nats:+.4f} ({effect.low:+.4f} to {effect.high:+.4f}, model)"
    ends = f"{effect.low_percent:.2f}% to {effect.high_percent:.2f}%"
    return f"{effect.nats:+.4f} ({effect.percent:.2f}%; {ends}, model)"


def band_text(band: Band) -> str:
    """`1e-4 to 3e-4 (outside: 5e-5 and 1e-3)`, `1e-4 (not bracketed)`, or the names."""
    if band.names:
        return " or ".join(band.names)
    low, high = number(band.low), number(band.high)
    ends = [number(end) for end in (band.beyond_low, band.beyond_high) if end is not None]
    open_sides = [
        side for side, end in (("below", band.beyond_low), ("above", band.beyond_high)) if end is None
    ]
    notes = [f"outside: {' and '.join(ends)}"] if ends else []
    if open_sides:
        notes.append("not bracketed" + (f" {open_sides[0]}" if ends else ""))
    if band.by_model:
        notes.append(f"by a model of {plural(band.num_in_model, 'trial')}")
    return (low if low == high else f"{low} to {high}") + f" ({'; '.join(notes)})"


def band_advice(band: Band) -> str:
    """Which end to take: of a rate the lower one, from the best down; "" where the ends are alike, and where
    nothing tells where the band ends."""
    best = finite(band.best)
    if band.parameter not in RATES or band.low is None or best is None or band.beyond_high is None:
        return ""
    if band.low == best:
        return f"take {number(best)}, the low end of the band"
    return f"take {number(band.low)} to {number(best)}, not more: above the band the loss is a cliff"


def verdict_sentence(row: RowVerdict, margin: float) -> str:
    """The word, the effect in loss and percent, the interval, the band, and what to do at an edge."""
    parts = [f"Verdict: {word_text(row)}{_because(row.comparison, margin)}."]
    if is_joint(row):
        parts = ["Verdict: undecided; what was run again differs from the best in other values too."]
    if row.differs_in:
        parts.append(f"That trial also has its own {conjunction(row.differs_in)}.")
    if row.band is not None and row.measurement.is_tested:
        parts.append(f"Within {100 * margin:g}% of the best: {row.row.parameter} {band_text(row.band)}.")
        if advice := band_advice(row.band):
            parts.append(sentence(advice))
    if row.edge:
        parts.append(f"The best is at the {row.edge} end of what was searched: widen the range.")
    statement = conditions_statement(row.measurement.conditions)
    if statement.startswith("Conditions differ"):
        parts.append(statement)
    return " ".join(parts)


def _because(comparison: Comparison | None, margin: float) -> str:
    if comparison is None:
        return "; nothing that was run again tests it"
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
            f"margin {100 * margin:g}%" + (f"; {CONTRADICTED}" if comparison.contradicted else "")
        )
    elif comparison.effect is not None:
        said.append("too few for an interval")
    if comparison.lost:
        said.append(
            f"{plural(comparison.lost, 'run')} of {comparison.arm} ended early where the other finished"
        )
    if comparison.other_lost:
        said.append(f"{plural(comparison.other_lost, 'run')} of {comparison.other} ended early")
    return f": {'; '.join(said)}" if said else "; no pair of runs finished"
