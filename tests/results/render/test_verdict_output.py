"""A verdict as JSON, Markdown and in the terminal."""

from __future__ import annotations

import json
import math

import optuna
import pytest
from rich.text import Text

from results.render.files import write_verdict
from results.render.grouped_table import Group, grouped_table
from results.render.markdown import to_markdown
from results.render.rows_page import row_cells, rows_page
from results.render.terminal import render, render_rows
from results.verdict.verdict import verdict
from tests.results.confirm_studies import ARMS, arm, confirm
from tests.results.conftest import answer_of, study, trial


@pytest.fixture
def example() -> optuna.Study:
    return study(
        trial(2.10, lr=2e-4, rows=("scenario.general",), label="guideline default"),
        trial(2.00, lr=8e-4),
        trial(outcome="diverged", lr=1.9e-3, signs=("nan_or_inf",), reports={20: math.nan}),
    )


def plain(lines: list[Text]) -> str:
    return "\n".join(line.plain for line in lines)


def test_json_is_strict_and_holds_the_numbers_and_the_answer(example, tmp_path):
    data, page, rows = write_verdict(verdict(example), answer_of(example), tmp_path)
    read = json.loads(data.read_text(), parse_constant=lambda name: 1 / 0)
    assert (read["format"], read["best"]["number"]) == (3, 1)
    row = next(row for row in read["rows"] if row["id"] == "scenario.general")
    assert (row["position"], row["cost"]["trial"]) == ("above", 0)
    assert row["source"]["document"]
    answer = read["answer"]
    assert answer["default"]["gap"]["percent"] == pytest.approx(5)
    assert answer["text"]["headline"].endswith("loss 2.000; the guideline default costs 5.0% more.")
    rate = answer["parameters"][0]
    assert (rate["title"], rate["tables"][0]["text"]) == ("Learning rate", "2e-4")
    assert rate["text"].startswith("Best here 8e-4, 4 times the tables' 2e-4")
    assert rate["tables"][0]["text_cells"]["cost"] == "+5.0% (default)"
    assert {page.name, rows.name} == {"verdict.md", "verdict-rows.md"}
    assert len(list(tmp_path.iterdir())) == 3


def test_the_page_is_short_and_the_rows_stand_beside_it(example):
    page, rows = to_markdown(verdict(example), answer_of(example)), rows_page(verdict(example))
    assert len(page.split()) < 500
    assert page.index("Use learning_rate 8e-4") < page.index("How sure?") < page.index("| Learning rate |")
    assert "[verdict-rows.md](verdict-rows.md)" in page
    for row in verdict(example).rows:
        assert f"{row.row.id}" in rows
    for text in (page, rows):
        assert all(line.endswith("|") for line in text.splitlines() if line.startswith("|"))


def test_rows_are_counted_alike_everywhere(tmp_path):
    made = study(
        trial(2.10, lr=2e-4, rows=("scenario.general",), label="guideline default"),
        trial(2.00, lr=8e-4),
        trial(2.3, lr=1.9e-3, signs=("loss_spike",)),
    )
    found, answer = verdict(made), answer_of(made)
    data, page, rows = write_verdict(found, answer, tmp_path)
    read = json.loads(data.read_text())
    counts = read["row_counts"]
    assert counts["stability"] > 0
    assert sum(counts.values()) == len(read["rows"])
    text = f"{len(read['rows'])} guideline rows: {counts['tested']} tested, "
    text += f"{counts['stability']} on stability, {counts['not_tested']} not tested"
    for shown in (page.read_text(), rows.read_text(), plain(render(found, answer))):
        assert text in shown
    shown = sum(len(value.rows) for parameter in answer.parameters for value in parameter.tables)
    assert shown == counts["tested"], "the table of values counts the same rows"


def test_the_cost_of_all_tables_values_stands_in_no_undecided_row():
    made = study(
        trial(2.1, lr=2e-4, ratio=0.25, label="guideline default", rows=("embedding.ratio",)),
        trial(2.0, lr=4e-4, ratio=0.125, scheduler="cosine"),
    )
    others = {"learning_rate": 2e-4, "embedding_lr_ratio": 0.25, "lr_scheduler_type": "linear"}
    found = verdict(made, confirm(ARMS[0], (arm("default", "guideline_default", **others), 2.1)))
    row = next(row for row in found.rows if row.row.id == "embedding.ratio")
    assert (row.by_default, row.word) == (True, "undecided")
    assert row_cells(row)["effect"] == ""
    rows = plain(render_rows(found))
    assert "run again" not in rows
    assert "4.8%" not in rows
    assert "4.76%" not in rows_page(found).partition("## Guideline rows this sweep tested")[2]
    assert "costs: of the row's value by itself" in " ".join(rows.split())


def test_a_bar_or_a_tag_in_a_reason_does_not_break_the_table():
    made = study(
        trial(outcome="pruned", rows=("scenario.general",), reports={40: 2.0}, reason="a | <b>\nc"),
    )
    line = next(line for line in rows_page(verdict(made)).splitlines() if "`scenario.general`" in line)
    assert "a \\| &lt;b> c" in line


def test_the_terminal_shows_each_value_of_the_tables_once(example):
    lines = render(verdict(example), answer_of(example), width=80)
    text = plain(lines)
    assert "  2e-4" in text
    assert text.count("  2e-4 ") == 1
    assert "4 times higher" in text
    assert "undecided" not in text  # Sure? says it once
    assert text.count("one run per configuration") == 1
    rows = plain(render_rows(verdict(example)))
    assert rows.count("undecided") > 5
    assert "scenario.general  General Fine-tuning" in rows


def test_a_best_without_warmup_has_no_best_warmup():
    made = study(
        trial(2.2, lr=2e-4, label="guideline default"),
        trial(2.0, lr=8e-4, scheduler="constant"),
    )
    rows = {row.row.id: row for row in verdict(made).rows}
    warmup = rows["warmup.share_of_steps"]
    assert (warmup.measurement.position, warmup.measurement.best_value) == ("unused", None)
    assert (warmup.band, warmup.edge) == (None, "")
    assert warmup.measurement.cost is not None
    text = plain(render(verdict(made), answer_of(made)))
    assert "Warmup, steps  not used: the best scheduler, constant, has none" in text
    assert "The best trial, 1, has no warmup_ratio." in rows_page(verdict(made))


def test_a_verdict_without_a_best_renders_too():
    made = study(trial(outcome="failed", reason="worker died"))
    shown = plain(render(verdict(made), answer_of(made)))
    assert "Use   nothing: no trial finished its full budget with a finite loss." in shown
    assert to_markdown(verdict(made), answer_of(made)).count("No trial finished") == 1


def test_columns_are_wrapped_at_words_and_empty_ones_left_out():
    group = Group(title="a title", note="of its own", lines=[[("one two three", ""), ("", ""), ("x", "red")]])
    lines = [line.plain for line in grouped_table(("a", "b", "c"), [group], width=14)]
    assert lines == ["  a          c", "a title  of", "  its own", "  one two    x", "  three"]
