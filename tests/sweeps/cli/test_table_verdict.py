"""`sweeps table-verdict`: exit codes, messages, and what is written."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.sweeps.cli.calling import Call

TABLE = """\
name,lr,r,loss
x/base-8B,1e-4,16,1.1001
x/base-8B,1e-4,16,1.1000
x/base-8B,2e-4,16,1.0500
x/base-8B,2e-4,16,1.0501
x/base-8B,4e-4,16,1.0000
x/base-8B,4e-4,16,1.0001
x/base-8B,1e-3,16,oops
"""
COLUMNS = "model=name,learning_rate=lr,rank=r,eval_loss=loss"


@pytest.fixture
def table(tmp_path: Path) -> Path:
    path = tmp_path / "runs.csv"
    path.write_text(TABLE)
    return path


def test_a_table_is_judged_and_written_on_request_only(call: Call, table: Path, tmp_path: Path) -> None:
    answer = call("table-verdict", table, "--columns", COLUMNS)
    assert answer.code == 0, answer.err
    assert "6 runs of 1 model" in answer.out
    assert "line 8: eval_loss is 'oops', no number" in answer.out
    assert sorted(tmp_path.iterdir()) == [table]
    assert "base-8B: +5" in answer.out  # what 2e-4 costs, a line for each model
    assert "every value on every model: --output NAME writes it" in " ".join(answer.out.split())
    assert "…" not in answer.out
    stem = tmp_path / "out" / "page"
    answer = call("table-verdict", table, "--columns", COLUMNS, "--output", stem)
    assert answer.code == 0, answer.err
    read = json.loads((tmp_path / "out" / "page.json").read_text())
    words = {row["id"]: row["verdict"] for row in read["models"][0]["rows"]}
    assert words["size.7-8b"] == "too_low"
    assert "too low on base-8B" in (tmp_path / "out" / "page.md").read_text()


def test_files_that_are_there_are_replaced_on_request_only(call: Call, table: Path, tmp_path: Path) -> None:
    kept = tmp_path / "page.md"
    kept.write_text("mine")
    arguments = ("table-verdict", table, "--columns", COLUMNS, "--output", tmp_path / "page")
    answer = call(*arguments)
    assert answer.code == 2
    assert "page.md. --overwrite replaces them" in answer.err
    assert "export" not in answer.err
    assert kept.read_text() == "mine"
    assert not (tmp_path / "page.json").exists()
    assert call(*arguments, "--overwrite").code == 0
    assert kept.read_text() != "mine"


def test_conditions_stand_beside_the_rows_own(call: Call, table: Path) -> None:
    answer = call("table-verdict", table, "--columns", COLUMNS, "--condition", "quantization=16-bit")
    assert answer.code == 0
    assert "base: 16-bit here, 4-bit in the rows that say it." in answer.out


def test_the_margin_is_in_percent(call: Call, table: Path) -> None:
    strict = call("table-verdict", table, "--columns", COLUMNS).out
    loose = call("table-verdict", table, "--columns", COLUMNS, "--margin", 20).out
    assert "too low on base-8B" in strict
    assert "too low on base-8B" not in loose
    assert "no difference on base-8B" in loose


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--columns", "model=nam,learning_rate=lr,eval_loss=loss"), "Did you mean 'name'"),
        (("--columns", "learningrate=lr"), "Did you mean 'learning_rate'"),
        (("--columns", COLUMNS, "--condition", "max_step=5"), "Did you mean 'max_steps'"),
        (("--columns", COLUMNS, "--condition", "max_steps=many"), "max_steps is a number; got 'many'"),
        (("--columns", COLUMNS, "--condition", "max_steps=0"), "a number above 0"),
        (("--columns", COLUMNS, "--condition", "max_steps"), "takes KEY=VALUE"),
        (("--columns", COLUMNS, "--condition", "method=lora"), "there is no method 'lora'"),
        (("--columns", COLUMNS, "--condition", "scenario=instructon"), "Did you mean 'instruction'"),
        (("--columns", COLUMNS, "--condition", "quantization=banana"), "there is no quantization 'banana'"),
        (("--columns", COLUMNS, "--condition", "alpha_convention=alpha/sqr(r)"), "mean 'alpha/sqrt(r)'"),
        (("--columns", COLUMNS, "--margin", 0), "above 0 and at most 50 percent"),
        (("--columns", COLUMNS, "--margin", "nan"), "above 0 and at most 50 percent"),
    ],
)
def test_bad_input_is_one_line_and_writes_nothing(
    call: Call, table: Path, tmp_path: Path, arguments: tuple[object, ...], words: str
) -> None:
    answer = call("table-verdict", table, "--output", tmp_path / "page", *arguments)
    assert answer.code == 2
    assert words in answer.err
    assert len(answer.err.strip().splitlines()) == 1
    assert sorted(tmp_path.iterdir()) == [table]


def test_a_table_that_is_not_there_is_bad_input(call: Call, tmp_path: Path) -> None:
    answer = call("table-verdict", tmp_path / "none.csv")
    assert answer.code == 2
    assert "No such file" in answer.err


def test_the_old_form_of_the_command_still_works(call: Call, table: Path) -> None:
    now = call("table-verdict", table, "--columns", COLUMNS)
    for old in (("--table", table), (f"--table={table}",)):
        assert call("verdict", *old, "--columns", COLUMNS) == now
    assert call("verdict", table.parent, "--table", table).code == 2
