"""Files and folders, and errors in them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lora_runner.data.records.read_files import read_records
from lora_runner.errors import DataError, RunnerError

ROWS = [{"text": "one"}, {"text": "zwei ü"}]


def fields(source: Path | str, split: str | None = None) -> list[dict[str, Any]]:
    return [record.fields for record in read_records(str(source), split=split)]


def places(source: Path | str) -> list[tuple[str, int]]:
    return [(Path(r.origin.path).name, r.origin.line) for r in read_records(str(source))]


def write(path: Path, text: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def jsonl(*texts: str) -> str:
    return "".join(json.dumps({"text": text}) + "\n" for text in texts)


def test_every_kind_of_file_gives_the_same_records(tmp_path: Path) -> None:
    pq.write_table(pa.Table.from_pylist(ROWS), tmp_path / "a.parquet")
    files = [
        write(tmp_path / "a.jsonl", "\n".join(json.dumps(row) for row in ROWS)),
        write(tmp_path / "b.ndjson", "\n".join(json.dumps(row, ensure_ascii=False) for row in ROWS)),
        write(tmp_path / "a.json", json.dumps(ROWS, indent=2)),
        write(tmp_path / "lines.json", "\n".join(json.dumps(row) for row in ROWS)),
        write(tmp_path / "a.csv", "text\none\nzwei ü\n"),
        write(tmp_path / "a.tsv", "text\none\nzwei ü\n"),
        tmp_path / "a.parquet",
    ]
    for file in files:
        assert fields(file) == ROWS, file.name


def test_lines_are_remembered_past_blank_lines_and_a_byte_order_mark(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", b'\xef\xbb\xbf{"text": "one"}\r\n\r\n  \n{"text": "two"}\n')
    assert places(path) == [("a.jsonl", 1), ("a.jsonl", 4)]
    assert fields(path) == [{"text": "one"}, {"text": "two"}]


def test_unusual_line_separators_do_not_shift_lines(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", '{"text": "a\u2028b\x85c"}\n{"text": "d"}\n')
    assert places(path) == [("a.jsonl", 1), ("a.jsonl", 2)]


def test_a_quoted_csv_field_may_span_lines(tmp_path: Path) -> None:
    text = '\ufeffprompt,completion\n"a\n\nb",c\n\nd,"say ""e""\u2028, f"\n'
    path = write(tmp_path / "a.csv", text)
    assert fields(path) == [
        {"prompt": "a\n\nb", "completion": "c"},
        {"prompt": "d", "completion": 'say "e"\u2028, f'},
    ]
    assert [line for _, line in places(path)] == [2, 6]


def test_csv_fields_may_be_long(tmp_path: Path) -> None:
    assert fields(write(tmp_path / "a.csv", "text\n" + "x" * 200_000)) == [{"text": "x" * 200_000}]


def test_items_and_rows_are_counted_from_one(tmp_path: Path) -> None:
    path = write(tmp_path / "a.json", '[{"text": "a"}, 5]')
    with pytest.raises(DataError, match=r"a\.json:2: item 2: a record must be a JSON object, got int"):
        read_records(str(path))
    pq.write_table(pa.Table.from_pylist(ROWS), tmp_path / "a.parquet", row_group_size=1)
    assert [(r.origin.line, r.origin.unit) for r in read_records(str(tmp_path / "a.parquet"))] == [
        (1, "row"),
        (2, "row"),
    ]


def test_nested_parquet_columns(tmp_path: Path) -> None:
    rows = [{"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "you"}]}]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
    assert fields(tmp_path / "a.parquet") == rows


def test_many_different_problems_are_counted_after_five(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", "\n".join(f'{{{" " * n}"text"}}' for n in range(8)))
    with pytest.raises(DataError) as caught:
        read_records(str(path))
    shown = str(caught.value).splitlines()
    assert [line.split(": ")[0] for line in shown[:5]] == [f"{path}:{n}" for n in range(1, 6)]
    assert shown[5:] == ["... and 3 more bad records"]


def test_several_bad_lines_are_reported_together(tmp_path: Path) -> None:
    lines = ['{"text": "fine"}', '{"text": ', "[1]", *['{"text"}'] * 12]
    path = write(tmp_path / "a.jsonl", "\n".join(lines))
    with pytest.raises(DataError) as caught:
        read_records(str(path))
    error = caught.value
    assert (error.path, error.line) == (str(path), 2)
    shown = str(error).splitlines()
    assert shown[0].startswith(f"{path}:2: broken JSON: ")
    assert shown[1] == f"{path}:3: a record must be a JSON object, got list"
    assert len(shown) == 3
    assert shown[2].startswith(f"{path}:4: broken JSON: ")
    assert shown[2].endswith(f" (12 such records, the next at {path}:5)")
    assert isinstance(error, RunnerError)
    assert isinstance(error, ValueError)


@pytest.mark.parametrize(
    ("name", "content", "line", "message"),
    [
        ("a.jsonl", b'{"text": "ok"}\n{"text": "\xff"}\n', 2, "text must be UTF-8: byte 0xff"),
        ("a.csv", b"text\nok\n\xff\n", 3, "text must be UTF-8: byte 0xff"),
        ("a.jsonl", b"[" * 100_000, 1, "nested too deeply"),
        ("a.json", b'[\n{"text": "a"},\n{"text": }\n]', 3, "broken JSON"),
        (
            "a.json",
            b'{\n"data": []\n}',
            None,
            "must hold a list of records, got one object with the keys data",
        ),
        ("a.json", b'"text"', 1, "must hold a list of records, got str"),
        ("a.csv", b"prompt,completion\na,b\nc\nd,e,f\n", 3, "the header has 2 columns, this row has 1"),
        ("a.csv", b"text,text\na,b\n", 1, "column names must differ, got text, text"),
        ("a.csv", b'text\nok\n"open', 3, "broken CSV"),
        ("a.parquet", b"PAR1 no parquet", None, "broken parquet"),
        ("a.jsonl", b"\n \n", None, "at least one record, this one is empty"),
        ("a.json", b"[]", None, "at least one record"),
        ("a.csv", b"text\n", None, "at least one record"),
        ("a.json", b"", None, "at least one record"),
        ("a.txt", b"text", None, r"must end in \.jsonl, .*, got '\.txt'"),
        ("data", b"text", None, "got 'no suffix'"),
    ],
)
def test_bad_files(tmp_path: Path, name: str, content: bytes, line: int | None, message: str) -> None:
    path = write(tmp_path / name, content)
    with pytest.raises(DataError, match=message) as caught:
        read_records(str(path))
    assert (caught.value.path, caught.value.line) == (str(path), line)


def test_a_missing_file_names_the_nearest(tmp_path: Path) -> None:
    write(tmp_path / "train.jsonl", jsonl("a"))
    (tmp_path / "page.json").touch()
    with pytest.raises(DataError) as caught:
        read_records(str(tmp_path / "t.jsonl"))
    assert "Did you mean" not in str(caught.value)  # alike by the ending alone
    with pytest.raises(DataError, match=r"no such file or folder. Did you mean 'train.jsonl'\?"):
        read_records(str(tmp_path / "trian.jsonl"))
    with pytest.raises(DataError, match=r"the folder .*gone' does not exist either"):
        read_records(str(tmp_path / "gone" / "train.jsonl"))


def test_a_folder_is_read_in_the_order_of_its_names(tmp_path: Path) -> None:
    write(tmp_path / "b.jsonl", jsonl("b"))
    write(tmp_path / "a.csv", "text\na\n")
    write(tmp_path / "sub" / "c.json", '[{"text": "c"}]')
    write(tmp_path / "README.md", "no data")
    write(tmp_path / ".cache" / "d.jsonl", jsonl("hidden"))
    write(tmp_path / "dataset_infos.json", "{}")
    assert fields(tmp_path) == [{"text": "a"}, {"text": "b"}, {"text": "c"}]
    assert places(tmp_path) == [("a.csv", 2), ("b.jsonl", 1), ("c.json", 1)]


def test_splits_of_a_folder_are_file_or_folder_names(tmp_path: Path) -> None:
    write(tmp_path / "train-00000-of-00002.jsonl", jsonl("a"))
    write(tmp_path / "train-00001-of-00002.jsonl", jsonl("b"))
    write(tmp_path / "dev" / "part.jsonl", jsonl("v"))
    write(tmp_path / "test.jsonl", jsonl("t"))
    assert fields(tmp_path, "train") == [{"text": "a"}, {"text": "b"}]
    assert fields(tmp_path, "validation") == fields(tmp_path, "dev") == [{"text": "v"}]
    assert fields(tmp_path, "test") == [{"text": "t"}]
    with pytest.raises(
        DataError, match="no file of the folder belongs to split 'spare'; splits: test, train"
    ):
        read_records(str(tmp_path), split="spare")


def test_training_files_without_a_split_name_never_include_the_test_file(tmp_path: Path) -> None:
    write(tmp_path / "part1.jsonl", jsonl("a"))
    write(tmp_path / "part2.jsonl", jsonl("b"))
    write(tmp_path / "test.jsonl", jsonl("t"))
    assert fields(tmp_path, "train") == [{"text": "a"}, {"text": "b"}]


def test_bad_lines_of_all_files_of_a_folder_are_reported_together(tmp_path: Path) -> None:
    write(tmp_path / "a.jsonl", "{\n")
    write(tmp_path / "b.jsonl", jsonl("fine") + "}\n")
    with pytest.raises(DataError) as caught:
        read_records(str(tmp_path))
    assert str(caught.value).splitlines()[1].startswith(f"{tmp_path / 'b.jsonl'}:2: broken JSON")


def test_an_empty_folder(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no file that can be read"):
        read_records(str(tmp_path))
