"""Any data file is read, or rejected with a DataError that names the file."""

from __future__ import annotations

import json
import random
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from files_and_text.choices import DATA_FORMATS
from lora_runner.data.records.convert import convert
from lora_runner.data.records.read_files import read_records
from lora_runner.errors import DataError

KEYS = (
    *("messages", "conversations", "prompt", "completion", "instruction", "input", "output", "system"),
    *("history", "text", "tools", "role", "content", "from", "value", "weight", "tool_calls", "type"),
)
SUFFIXES = (".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet")
scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(10**25), 10**25)
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(
        ["user", "assistant", "human", "gpt", "[", "[[1]]", '[{"role": "user"}]', "\ud800", "\0"]
    )
)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=3),
    max_leaves=10,
)
fuzz = settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])


def read(folder: Path, suffix: str, raw: bytes, format: str | None = None) -> None:
    file = folder / f"fuzz{suffix}"
    file.write_bytes(raw)
    try:
        _, examples = convert(read_records(str(file)), format)
    except DataError as error:
        said = error
    else:
        assert all(len(each.content_key) == 64 for each in examples)
        return
    assert said.path == str(file)
    assert str(said).startswith(f"{file}:")


@fuzz
@given(st.sampled_from(SUFFIXES), st.binary(max_size=120))
@example(".json", b"[" * 100_000)
@example(".json", b'{"a":' * 100_000)
@example(".json", b"[1" + b"0" * 5000 + b"]")
@example(".jsonl", b'{"text": ' + b"1" * 5000 + b"}")
@example(".csv", b"a,b\n\0,1\n")
def test_any_bytes(tmp_path: Path, suffix: str, raw: bytes) -> None:
    read(tmp_path, suffix, raw)


@fuzz
@given(
    st.lists(st.dictionaries(st.sampled_from(KEYS), values, max_size=4), min_size=1, max_size=3),
    st.none() | st.sampled_from(DATA_FORMATS),
    st.booleans(),
)
@example([{"messages": "[" * 100_000}], None, True)
@example([{"text": "a", "tools": "[" * 100_000}], None, True)
@example([{"messages": [{"role": "user", "content": "a"}], "tools": "[" * 100_000}], None, True)
@example([{"messages": "[1" + "0" * 5000 + "]"}], None, True)
@example([{"messages": [{"role": "user", "content": "a", "weight": [1]}]}], None, True)
def test_records_of_known_keys_with_anything_in_them(
    tmp_path: Path, records: list[dict[str, Any]], format: str | None, by_line: bool
) -> None:
    if by_line:
        read(tmp_path, ".jsonl", "\n".join(map(json.dumps, records)).encode(), format)
    else:
        read(tmp_path, ".json", json.dumps(records).encode(), format)


@fuzz
@given(
    st.lists(
        st.lists(st.sampled_from([*KEYS, '"', "a\nb", '"x', "", "[", '[{"role": 1}]']), max_size=4),
        max_size=4,
    ),
    st.sampled_from([".csv", ".tsv"]),
)
def test_tables_of_anything(tmp_path: Path, rows: list[list[str]], suffix: str) -> None:
    between = "\t" if suffix == ".tsv" else ","
    read(tmp_path, suffix, "\n".join(between.join(row) for row in rows).encode())


@cache
def parquet() -> bytes:
    turns = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "you"}]
    sink = BytesIO()
    pq.write_table(pa.Table.from_pylist([{"messages": turns, "text": "some text"}] * 40), sink)
    return sink.getvalue()


@fuzz
@given(st.randoms(use_true_random=False))
def test_damaged_parquet(tmp_path: Path, generator: random.Random) -> None:
    raw = bytearray(parquet())
    for _ in range(generator.randint(1, 4)):
        raw[generator.randrange(len(raw))] = generator.randrange(256)
    if generator.random() < 0.3:
        del raw[generator.randrange(len(raw)) :]
    read(tmp_path, ".parquet", bytes(raw))
