"""`sweeps table-verdict`: the guideline rows checked against a published table of runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from files_and_text.nearest_name import nearest
from results.errors import TableError, WouldOverwrite
from results.published.decide import judge_table
from results.published.json_data import published_data
from results.published.page import published_page, write_published
from results.published.table import parse_columns, read_table
from results.render.markdown import bullets
from results.verdict.applicability import FOUR_BIT
from search_spaces import METHODS, load_guidelines

CONDITIONS: Mapping[str, type] = {
    "model_size": float,
    "max_steps": int,
    "per_device_train_batch_size": int,
    "gradient_accumulation_steps": int,
    "quantization": str,
    "alpha_convention": str,
    "method": str,
    "scenario": str,
}

_ONLY_IN_THE_FILE = ("Models", "Every value on every model", "Limits")
"""Sections of the page."""


def parse_conditions(settings: Sequence[str]) -> dict[str, Any]:
    """KEY=VALUE settings as the context of all runs; TableError for an unknown key or a bad value."""
    context: dict[str, Any] = {"method": "qlora", "scenario": "general", "train_embeddings": False}
    for text in settings:
        key, equals, value = (part.strip() for part in text.partition("="))
        if not equals or not value:
            raise TableError(f"--condition takes KEY=VALUE; got {text!r}")
        if key not in CONDITIONS:
            raise TableError(f"{key!r} is not a condition of a run.{nearest(key, CONDITIONS)}")
        try:
            read = CONDITIONS[key](value)
        except ValueError:
            raise TableError(f"{key} is a number; got {value!r}") from None
        if not isinstance(read, str) and not 0 < read < 1e15:
            raise TableError(f"{key} is a number above 0; got {value!r}")
        context[key] = read
    for key, known in _known_names().items():
        if key in context and context[key] not in known:
            raise TableError(f"there is no {key} {context[key]!r}.{nearest(context[key], known)}")
    return context


def _known_names() -> dict[str, Sequence[str]]:
    return {
        "method": METHODS,
        "scenario": load_guidelines().scenarios(),
        "quantization": (*FOUR_BIT, "int8", "8-bit", "16-bit", "32-bit", "none"),
        "alpha_convention": ("alpha/r", "alpha/sqrt(r)", "alpha"),
    }


def judge_table_file(
    path: Path,
    *,
    columns: str = "",
    conditions: Sequence[str] = (),
    margin: float,
    about: str = "",
    output: Path | None = None,
    overwrite: bool = False,
) -> tuple[str, list[Path]]:
    """A summary of the page about the table, as Markdown, and the files written: OUTPUT.json and OUTPUT.md,
    none without `output`."""
    context = parse_conditions(conditions)
    read = read_table(path, parse_columns(columns))
    files = [] if output is None else [output.with_name(f"{output.name}.{end}") for end in ("json", "md")]
    present = [file for file in files if file.exists()]
    if present and not overwrite:
        raise WouldOverwrite(present)
    verdicts = judge_table(read, load_guidelines(), context, margin=margin)
    page = published_page(read, verdicts, margin=margin, about=about)
    if output is not None:
        write_published(page, published_data(read, verdicts, margin=margin), output)
    whole = "" if files else "The whole page, with every value on every model: `--output NAME` writes it."
    return summary(page, read.left_out, whole), files


def summary(page: str, left_out: Sequence[str], whole: str = "") -> str:
    """The page without its wide tables and the limits of single models, which no terminal has room for."""
    first, *sections = page.rstrip().split("\n## ")
    kept = [f"## {text}" for text in sections if text.partition("\n")[0] not in _ONLY_IN_THE_FILE]
    return "\n\n".join(part.strip() for part in [first, *kept, bullets(left_out), whole] if part)
