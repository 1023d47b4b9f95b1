"""Write verdict.json and verdict.md."""

from __future__ import annotations

from pathlib import Path

from files_and_text.atomic_files import atomic_write, atomic_write_json
from results.render.json_data import verdict_data
from results.render.markdown import to_markdown
from results.verdict.verdict import Verdict


def write_verdict(verdict: Verdict, run_folder: Path) -> tuple[Path, Path]:
    """Write `verdict.json` and `verdict.md` into the run folder, each whole; return their paths."""
    data = atomic_write_json(run_folder / "verdict.json", verdict_data(verdict))
    return data, atomic_write(run_folder / "verdict.md", to_markdown(verdict))
