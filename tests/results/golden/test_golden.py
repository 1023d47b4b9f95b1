"""Verdicts as they were first written: no number and no word may change unnoticed.

To accept a change on purpose: `python -m tests.results.golden.test_golden`, and read the difference.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from rich.text import Text

from results.answer.read_answer import read_answer
from results.published.decide import judge_table
from results.published.json_data import published_data
from results.published.page import published_page
from results.published.table import parse_columns, read_table
from results.render.json_data import verdict_data
from results.render.markdown import to_markdown
from results.render.rows_page import rows_page
from results.render.terminal import render, render_rows
from results.sweep_result import read_study
from results.verdict.verdict import verdict
from search_spaces import load_guidelines
from tests.results.golden.cases import CASES, TABLE

EXPECTED = Path(__file__).parent / "expected"


def rendered(name: str) -> dict[str, str]:
    """File name -> text of one case."""
    study, replicates = CASES[name]()
    found = verdict(study, replicates)
    answer = read_answer(read_study(study), found, run_folder="runs/mine")
    lines = [*render(found, answer), Text("-" * 80), *render_rows(found)]
    return {
        f"{name}.json": one_line_a_row(verdict_data(found, answer)),
        f"{name}.md": to_markdown(found, answer),
        f"{name}-rows.md": rows_page(found),
        f"{name}.txt": "\n".join(line.plain for line in lines) + "\n",
    }


def rendered_table(folder: Path) -> dict[str, str]:
    (folder / "runs.csv").write_text(TABLE)
    read = read_table(folder / "runs.csv", parse_columns("learning_rate=lr,eval_loss=test_nll"))
    rows = [row.to_dict() for row in load_guidelines().values() if row.parameter == "learning_rate"]
    context = {"method": "qlora", "scenario": "general", "train_embeddings": False}
    found = judge_table(read, type(load_guidelines()).from_list(rows), context)
    return {
        "table.json": one_line_a_row(published_data(read, found, margin=0.005)),
        "table.md": published_page(read, found, about="About."),
    }


def one_line_a_row(data: dict[str, Any]) -> str:
    """JSON with a line for every key, and for every item of a list."""
    lines = []
    for key, value in data.items():
        if isinstance(value, list) and value:
            lines += [f"{json.dumps(key)}: [", ",\n".join(json.dumps(item) for item in value), "],"]
        else:
            lines.append(f"{json.dumps(key)}: {json.dumps(value)},")
    return "{" + "\n".join(lines).removesuffix(",") + "}\n"


@pytest.mark.parametrize("name", CASES)
def test_a_verdict_is_the_same_in_every_number_and_word(name: str) -> None:
    for file, text in rendered(name).items():
        assert text == (EXPECTED / file).read_text(encoding="utf-8"), file


def test_a_published_table_has_the_same_verdicts(tmp_path: Path) -> None:
    for file, text in rendered_table(tmp_path).items():
        assert text == (EXPECTED / file).read_text(encoding="utf-8"), file


if __name__ == "__main__":
    for case in CASES:
        for file, text in rendered(case).items():
            (EXPECTED / file).write_text(text, encoding="utf-8")
    for file, text in rendered_table(EXPECTED).items():
        (EXPECTED / file).write_text(text, encoding="utf-8")
    (EXPECTED / "runs.csv").unlink()
