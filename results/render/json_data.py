"""A verdict as builtins for verdict.json, with its sentences."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from files_and_text.plain_values import plain
from results.answer.answer import Answer
from results.comparison.paired import Comparison
from results.render.answer_data import answer_data
from results.sweep_result import TrialResult
from results.text.comparisons import band_advice
from results.text.conditions import conditions_statement, shown_conditions
from results.text.limitations import limitation_text
from results.text.row_counts import row_counts
from results.text.rows import description, early_ends, evidence, reason_not_tested
from results.verdict.band import Band
from results.verdict.measure import Measurement
from results.verdict.metric_comparison import MetricComparison
from results.verdict.row_verdict import RowVerdict
from results.verdict.verdict import Verdict

FORMAT = 3
"""Version of verdict.json; rises when a field changes its meaning."""


def verdict_data(verdict: Verdict, answer: Answer) -> dict[str, Any]:
    """The whole verdict and the answer, builtins only."""
    found: dict[str, Any] = plain(
        {
            "format": FORMAT,
            "study": verdict.study,
            "answer": answer_data(answer),
            "metric": "eval_loss",
            "best": _trial(verdict.best),
            "guideline_default": _trial(verdict.guideline_default),
            "base_eval_loss": verdict.base_eval_loss,
            "base_unquantized_eval_loss": None
            if answer.unquantized_base is None or answer.unquantized_base.loss is None
            else answer.unquantized_base.loss.value,
            **({} if answer.merged is None else {"merged_eval_loss": answer.merged.loss}),
            "margin": verdict.margin,
            "replicates": None if verdict.replicates is None else _replicates(verdict),
            **({} if verdict.by_metric is None else {"measured": _metric(verdict.by_metric)}),
            "outcomes": verdict.outcomes,
            "edges": [asdict(edge) for edge in verdict.edges],
            "caveats": [limitation_text(limitation) for limitation in verdict.limitations],
            "context": verdict.context,
            "row_counts": asdict(row_counts(verdict.rows)),
            "rows": [row_data(row) for row in verdict.rows],
        }
    )
    return found


def row_data(found: RowVerdict) -> dict[str, Any]:
    """Builtins only, the row's own fields first."""
    measurement = found.measurement
    cost = measurement.cost
    data: dict[str, Any] = plain(
        found.row.to_dict()
        | {
            "verdict": found.word,
            "edge": found.edge,
            "conditions_statement": conditions_statement(measurement.conditions),
            "position": measurement.position,
            "reason": reason_not_tested(found),
            "best_value": measurement.best_value,
            "best_trial": measurement.best_trial,
            "distance_log10": measurement.distance_log10,
            "centre_offset_log10": measurement.centre_offset_log10,
            "evidence": evidence(found),
            "stopped": early_ends(found),
            "details": _details(measurement),
            "claim": description(found),
            "cost": None if cost is None else asdict(cost),
            "cost_alone": None if measurement.alone is None else asdict(measurement.alone),
            "effect": None if measurement.effect is None else asdict(measurement.effect),
            "comparison": comparison_data(found.comparison),
            "by_default": found.by_default,
            "band": None if found.band is None else _band(found.band),
            "widen": bool(found.edge),
            "conditions": [asdict(shown) for shown in shown_conditions(measurement.conditions)],
        }
    )
    return data


def comparison_data(comparison: Comparison | None) -> dict[str, Any] | None:
    """The comparison's fields, and its differences in percent."""
    if comparison is None:
        return None
    differences = {name: getattr(comparison, name) for name in ("effect", "low", "high")}
    shares = {f"{name}_percent": comparison.percent(value) for name, value in differences.items()}
    return asdict(comparison) | shares


def _trial(trial: TrialResult | None) -> dict[str, Any] | None:
    names = ("number", "outcome", "eval_loss", "values", "label", "stop_reason")
    return None if trial is None else {name: getattr(trial, name) for name in names}


def _details(measurement: Measurement) -> dict[str, Any]:
    beyond, signs = measurement.beyond, measurement.signs
    if beyond is not None:
        return {"trials": beyond.trials, "outcomes": beyond.outcomes, "signs": beyond.signs}
    counts = {} if signs is None else asdict(signs)
    return {name: count for name, count in counts.items() if name not in ("num_values", "best_value")}


def _band(band: Band) -> dict[str, Any]:
    return asdict(band) | {"advice": band_advice(band)}


def _replicates(verdict: Verdict) -> dict[str, Any]:
    found = verdict.replicates
    assert found is not None
    return {
        "margin": found.margin,
        "alpha": found.alpha,
        "rounds": found.rounds,
        "clear": found.clear,
        "run_noise": found.run_noise,
        "reference": found.reference.name,
        "arms": [
            arm.arm.to_dict()
            | {"runs": arm.runs, "finished": arm.finished, "mean": arm.mean, "spread": arm.spread}
            for arm in found.arms
        ],
        "comparisons": {name: comparison_data(comparison) for name, comparison in found.comparisons.items()},
        "over_records": {name: asdict(one) for name, one in verdict.over_records.arms.items()},
    }


def _metric(found: MetricComparison) -> dict[str, Any]:
    by_metric, by_loss = (
        {"number": trial.number, "metric": trial.metric, "eval_loss": trial.eval_loss}
        for trial in (found.by_metric, found.by_loss)
    )
    return asdict(found) | {
        "by_metric": by_metric,
        "by_loss": by_loss,
        "comparison": comparison_data(found.comparison),
        "differs": found.differs,
    }
