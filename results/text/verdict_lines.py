"""A verdict in a few sentences."""

from __future__ import annotations

from files_and_text.numbers import loss, plural
from results.sweep_result import TrialResult
from results.text.comparisons import effect_text
from results.text.metric import metric_sentences
from results.verdict.verdict import Verdict


def best_label(verdict: Verdict) -> str:
    """`Best by loss` where the sweep searched by a metric: best/ then holds the best by that."""
    is_other = verdict.by_metric is not None and verdict.by_metric.is_objective
    return "Best by loss" if is_other else "Best"


def verdict_lines(verdict: Verdict) -> list[str]:
    """The answer in a few sentences: the best trial, the guideline default, the untouched base."""
    if verdict.best is None:
        outcomes = ", ".join(f"{count} {name}" for name, count in verdict.outcomes.items())
        return [f"No best config: no trial finished its full budget with a finite loss ({outcomes})."]
    best = verdict.best
    lines = [f"{best_label(verdict)}: trial {best.number}, eval_loss {loss(best.eval_loss)} nats per token."]
    lines += [] if verdict.by_metric is None else metric_sentences(verdict.by_metric)
    lines.append(_default_line(verdict, verdict.guideline_default))
    again = verdict.default_comparison
    if again is not None and again.effect is not None:
        lines.append(
            f"On {plural(again.pairs, 'common seed')} the guideline default's loss against the best's: "
            f"{effect_text(again)}."
        )
    if verdict.base_eval_loss is None:
        lines.append("The untouched base was not measured.")
    else:
        lines.append(
            f"Untouched base: {loss(verdict.base_eval_loss)}; the best is {_lower(verdict.gain_over_base)}."
        )
    return lines


def _default_line(verdict: Verdict, default: TrialResult | None) -> str:
    if default is None:
        return "Guideline default: not tried."
    if default.eval_loss is None:
        reason = f": {default.stop_reason}" if default.stop_reason else ""
        return f"Guideline default: trial {default.number}, {default.outcome}{reason}"
    if verdict.best is not None and default.number == verdict.best.number:
        return "The guideline default is the best trial."
    return (
        f"Guideline default: trial {default.number}, {loss(default.eval_loss)}; "
        f"the best is {_lower(verdict.gain_over_default)}."
    )


def _lower(gain: float | None) -> str:
    return "of unknown gain" if gain is None else f"{abs(gain):.4f} {'lower' if gain >= 0 else 'higher'}"
