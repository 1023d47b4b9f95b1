"""A verdict as JSON, Markdown and in the terminal."""

from __future__ import annotations

import io
import json
import math

from rich.console import Console

from results.render.files import write_verdict
from results.render.markdown import to_markdown
from results.render.terminal import render
from results.verdict.verdict import verdict


def example(make_trial, make_study):
    return verdict(
        make_study(
            make_trial(2.10, lr=2e-4, rows=("scenario.general",), label="guideline default"),
            make_trial(2.00, lr=8e-4),
            make_trial(outcome="diverged", lr=1.9e-3, signs=("nan_or_inf",), reports={20: math.nan}),
        )
    )


def test_json_is_strict_and_holds_the_numbers(make_trial, make_study, tmp_path):
    result = example(make_trial, make_study)
    data, page = write_verdict(result, tmp_path)
    read = json.loads(data.read_text(), parse_constant=lambda name: 1 / 0)
    assert read["best"]["number"] == 1
    assert read["gain_over_default"] == 2.10 - 2.00
    row = next(row for row in read["rows"] if row["id"] == "scenario.general")
    assert (row["position"], row["cost"]["trial"]) == ("above", 0)
    assert row["source"]["document"]
    assert page.read_text() == to_markdown(result)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["verdict.json", "verdict.md"]


def test_markdown_answers_first_and_names_every_row(make_trial, make_study):
    result = example(make_trial, make_study)
    page = to_markdown(result)
    assert page.index("Best: trial 1, eval_loss 2.0000") < page.index("## Limits") < page.index("| row |")
    assert "One run per config" in page
    for row in result.rows:
        assert f"{row.row.id}" in page
    table_lines = [line for line in page.splitlines() if line.startswith("|")]
    assert all(line.endswith("|") for line in table_lines)


def test_a_bar_or_a_tag_in_a_reason_does_not_break_the_table(make_trial, make_study):
    study = make_study(
        make_trial(outcome="pruned", rows=("scenario.general",), reports={40: 2.0}, reason="a | <b>\nc"),
    )
    line = next(line for line in to_markdown(verdict(study)).splitlines() if "`scenario.general`" in line)
    assert "a \\| &lt;b> c" in line


def test_terminal_shows_answer_and_rows_at_any_width(make_trial, make_study):
    result = example(make_trial, make_study)
    for width in (60, 200):
        console = Console(file=io.StringIO(), width=width, no_color=True)
        console.print(render(result))
        text = console.file.getvalue()
        assert "Best: trial 1" in text
        assert max(len(line) for line in text.splitlines()) <= width
    assert "+5.00%" in text


def test_a_verdict_without_a_best_renders_too(make_trial, make_study):
    result = verdict(make_study(make_trial(outcome="failed", reason="worker died")))
    console = Console(file=io.StringIO(), width=100)
    console.print(render(result))
    assert "No best config" in console.file.getvalue()
    assert "No best config" in to_markdown(result)
