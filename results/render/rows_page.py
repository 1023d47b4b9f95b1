"""The guideline rows one by one as a Markdown page: conditions, evidence, and why others were not tested."""

from __future__ import annotations

from collections.abc import Mapping

from files_and_text.numbers import loss, number, value_text
from results.comparison.records import RecordComparison
from results.render.markdown import bullets, table
from results.text.comparisons import cost_text, effect_text, row_effect_text, verdict_sentence, word_text
from results.text.limitations import limitation_text
from results.text.records import record_interval_text
from results.text.row_counts import counts_text
from results.text.rows import description, early_ends, evidence, reason_not_tested
from results.text.values import shown_range
from results.verdict.arm_comparisons import ArmComparisons
from results.verdict.row_verdict import RowVerdict
from results.verdict.verdict import Verdict

_SHOWN_CONTEXT = (
    "model",
    "model_size",
    "scenario",
    "method",
    "quantization",
    "compute_dtype",
    "max_steps",
    "per_device_train_batch_size",
    "gradient_accumulation_steps",
    "lora_r",
    "lora_alpha",
    "alpha_convention",
    "train_embeddings",
    "max_length",
    "num_eval_tokens",
)


def rows_page(verdict: Verdict) -> str:
    """What the verdict rests on: limits, runs on new seeds, the tested rows, the rows not tested."""
    tested = [row for row in verdict.rows if row.is_tested]
    untested = [row for row in verdict.rows if not row.is_tested]
    parts = [
        f"# Guideline rows of sweep {verdict.study}, one by one",
        f"{counts_text(verdict.rows)}.",
    ]
    parts.append("## Limits\n\n" + bullets(map(limitation_text, verdict.limitations)))
    if verdict.replicates is not None:
        is_of_best = verdict.replicates.is_of(verdict.best)
        parts.append(_replicates(verdict.replicates, verdict.over_records.arms, is_of_best=is_of_best))
    if tested:
        cells = [row_cells(row) for row in tested]
        parts.append(
            "## Guideline rows this sweep tested\n\n"
            f"Held fixed: {_context(verdict)}. Loss in nats per token. Distance from the nearest end of "
            "the row's range, in log10.\n\n" + table(list(cells[0]), [list(line.values()) for line in cells])
        )
        parts.append(bullets(_row_sentences(row, verdict) for row in tested))
    if untested:
        parts.append(
            "## Guideline rows not tested\n\n"
            + table(
                ("row", "value", "why not"),
                [(f"`{r.row.id}`", shown_range(r.row), _reason(r)) for r in untested],
            )
        )
    return "\n\n".join(parts) + "\n"


def row_cells(row: RowVerdict) -> dict[str, str]:
    """Column -> cell of a tested row; empty where a column has no meaning for it."""
    measurement = row.measurement
    return {
        "row": row.row.id,
        "parameter": row.row.parameter or "",
        "value": "" if row.row.topic == "stability" else shown_range(row.row),
        "best": "" if measurement.best_value is None else value_text(measurement.best_value),
        "verdict": word_text(row),
        "effect": row_effect_text(row),
        "position": measurement.position,
        "distance": "" if measurement.distance_log10 is None else f"{measurement.distance_log10:.2f}",
        "cost of the row": cost_text(row),
        "evidence": evidence(row),
    }


def _row_sentences(row: RowVerdict, verdict: Verdict) -> str:
    described = description(row) if row.measurement.is_tested else ""
    parts = [verdict_sentence(row, verdict.margin), described, f"({row.row.source})"]
    return f"`{row.row.id}`: " + " ".join(part for part in parts if part)


def _replicates(
    found: ArmComparisons, over_records: Mapping[str, RecordComparison], *, is_of_best: bool
) -> str:
    cells = []
    for summary in found.arms:
        comparison = found.comparisons.get(summary.arm.name)
        cells.append(
            (
                summary.arm.name,
                summary.arm.role,
                f"{summary.finished} of {summary.runs}",
                loss(summary.mean),
                "" if summary.spread is None else f"{summary.spread:.4f}",
                "the reference" if comparison is None else effect_text(comparison) or "no common seed",
                *([_over_records(over_records.get(summary.arm.name))] if over_records else []),
            )
        )
    header = ["arm", "role", "finished", "mean loss", "spread of a run", f"against {found.reference.name}"]
    header += ["over other evaluation records"] if over_records else []
    state = "The stopping rule is met." if found.clear else "Not clear yet: more seeds can change a word."
    if not is_of_best:
        state = "The best here is an earlier one: trials were added since, and a better one is among them."
    return f"## Replicates on common seeds\n\n{state}\n\n{table(header, cells)}"


def _over_records(found: RecordComparison | None) -> str:
    return "" if found is None else record_interval_text(found)


def _context(verdict: Verdict) -> str:
    shown = [(name, verdict.context.get(name)) for name in _SHOWN_CONTEXT]
    named = [f"{name} {number(v) if isinstance(v, float) else v}" for name, v in shown if v is not None]
    return ", ".join(named) or "nothing recorded"


def _reason(row: RowVerdict) -> str:
    reason, seen = reason_not_tested(row), evidence(row)
    extra = [] if seen in ("not measured", reason) else [seen]
    return "; ".join([reason, *extra, *early_ends(row)])
