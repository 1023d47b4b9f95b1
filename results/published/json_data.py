"""The verdicts on a published table as builtins, for its JSON file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from files_and_text.plain_values import plain
from results.published.decide import ModelVerdict
from results.published.table import PublishedTable
from results.render.json_data import comparison_data
from results.text.conditions import conditions_statement
from results.text.limitations import limitation_text
from results.text.values import shown_range
from results.verdict.row_verdict import RowVerdict

FORMAT = 3
"""Version of the file; rises when a field changes its meaning."""


def published_data(
    table: PublishedTable, verdicts: Sequence[ModelVerdict], *, margin: float
) -> dict[str, Any]:
    """Builtins only; the tested rows of every model."""
    found: dict[str, Any] = plain(
        {
            "format": FORMAT,
            "table": table.name,
            "sha256": table.sha256,
            "columns": dict(table.columns),
            "runs": len(table.runs),
            "left_out": list(table.left_out),
            "margin": margin,
            "models": [_model(model) for model in verdicts],
        }
    )
    return found


def _model(model: ModelVerdict) -> dict[str, Any]:
    verdict = model.verdict
    best, rate = verdict.best, model.best_rate
    return {
        "model": model.model,
        "model_size": verdict.context.get("model_size"),
        "best": None if best is None else {"values": best.values, "eval_loss": best.eval_loss},
        "best_rate_by_the_curve": None if rate is None else asdict(rate),
        "default_cost": comparison_data(model.default_cost),
        "edges": [{"dimension": edge.dimension, "side": edge.side} for edge in verdict.edges],
        "caveats": [limitation_text(limitation) for limitation in verdict.limitations],
        "rows": [_row(model, row) for row in verdict.rows if row.is_tested],
    }


def _row(model: ModelVerdict, row: RowVerdict) -> dict[str, Any]:
    return {
        "id": row.row.id,
        "value": shown_range(row.row),
        "verdict": row.word,
        "position": row.measurement.position,
        "distance_log10": row.measurement.distance_log10,
        "nearest_size": row.row.id in model.nearest_size,
        "comparison": comparison_data(row.comparison),
        "edge": row.edge,
        "conditions_statement": conditions_statement(row.measurement.conditions),
    }
