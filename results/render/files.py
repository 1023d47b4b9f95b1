"""Write verdict.json, verdict.md and verdict-rows.md."""

from __future__ import annotations

from pathlib import Path

from files_and_text.atomic_files import atomic_write, atomic_write_json
from results.answer.answer import Answer
from results.render.json_data import verdict_data
from results.render.markdown import ROWS_FILE, to_markdown
from results.render.rows_page import rows_page
from results.verdict.verdict import Verdict


def write_verdict(verdict: Verdict, answer: Answer, run_folder: Path) -> tuple[Path, Path, Path]:
    """Write `verdict.json`, `verdict.md` and `verdict-rows.md` into the run folder, each whole; return their
    paths."""
    return (
        atomic_write_json(run_folder / "verdict.json", verdict_data(verdict, answer)),
        atomic_write(run_folder / "verdict.md", to_markdown(verdict, answer)),
        atomic_write(run_folder / ROWS_FILE, rows_page(verdict)),
    )
