"""Tool calls and schemas read the same from JSON Lines, parquet and a saved dataset."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lora_runner.data import Example, Message, convert, read_records
from lora_runner.data.records.record import Origin, Record
from lora_runner.data.records.tool_calls import decode_arguments, encode_arguments, without_nulls


def schema(name: str, **properties: str) -> dict[str, Any]:
    parameters = {"type": "object", "properties": {key: {"type": kind} for key, kind in properties.items()}}
    return {"type": "function", "function": {"name": name, "parameters": parameters}}


def call(name: str, arguments: Any) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, "arguments": arguments}}


def conversation(*calls: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"role": "user", "content": "do"}, {"role": "assistant", "content": "", "tool_calls": [*calls]}]


RECORDS = [
    {
        "messages": conversation(call("weather", {"town": "Ulm", "days": ["1", "2"]})),
        "tools": [schema("weather", town="string", days="array")],
    },
    {
        "messages": [*conversation(call("add", {"left": 1, "right": 2})), {"role": "tool", "content": "3"}],
        "tools": [schema("add", left="number", right="number"), schema("now")],
    },
    {"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "you"}]},
]


def test_a_set_has_the_same_content_in_every_file_format(
    write_jsonl: Callable[..., str], tmp_path: Path
) -> None:
    lines = write_jsonl(RECORDS)
    arrow = datasets.Dataset.from_list(RECORDS)
    assert "None" in str(arrow[1]["messages"][1]["tool_calls"]), "Arrow fills in nulls"
    arrow.to_parquet(tmp_path / "t.parquet")
    arrow.save_to_disk(tmp_path / "saved")
    (_, expected), *others = [
        convert(read_records(str(source))) for source in (lines, tmp_path / "t.parquet", tmp_path / "saved")
    ]
    assert expected[0].messages is not None
    assert expected[0].messages[1].extra == {
        "tool_calls": [call("weather", {"town": "Ulm", "days": ["1", "2"]})]
    }
    assert expected[1].tools == tuple(RECORDS[1]["tools"])
    for _, found in others:
        assert found == expected
        assert [one.content_key for one in found] == [one.content_key for one in expected]


def one(messages: list[dict[str, Any]], **fields: Any) -> Example:
    return convert([Record({"messages": messages, **fields}, Origin("f.jsonl", 1))])[1][0]


def test_arguments_as_json_text_are_those_of_a_dict() -> None:
    text = one(conversation(call("f", '{"a": [1, null], "b": null}'), call("g", "{}")))
    given = one(conversation(call("f", {"a": [1, None], "b": None}), call("g", {})))
    assert text.messages is not None
    assert given.messages is not None
    # What is text is as it was written: a null in it is meant.
    assert text.messages[1].extra["tool_calls"][0]["function"]["arguments"] == {"a": [1, None], "b": None}
    assert given.messages[1].extra["tool_calls"][0]["function"]["arguments"] == {"a": [1, None]}
    assert text.messages[1].extra["tool_calls"][1]["function"]["arguments"] == {}


@pytest.mark.parametrize("text", ["", "[1]", "5", "{", "null", "{'a': 1}"])
def test_text_that_is_not_a_json_object_stays(text: str) -> None:
    messages = one(conversation(call("f", text))).messages or ()
    assert messages[1].extra["tool_calls"] == [call("f", text)]


def test_flat_calls_and_the_old_function_call_are_decoded() -> None:
    extra = {
        "tool_calls": [{"name": "f", "arguments": '{"a": 1}'}],
        "function_call": {"arguments": '{"b": 2}'},
    }
    assert decode_arguments(extra) == {
        "tool_calls": [{"name": "f", "arguments": {"a": 1}}],
        "function_call": {"arguments": {"b": 2}},
    }
    turn = {"role": "assistant", "function_call": {"name": "f", "arguments": "{}"}}
    assert (one([turn]).messages or ())[0] == Message(
        role="assistant", content="", extra={"function_call": {"name": "f", "arguments": {}}}
    )


def test_arguments_become_text_again() -> None:
    extra = {"tool_calls": [call("f", {"a": "é"}), call("g", "as is"), {"name": "flat"}], "name": "n"}
    found = encode_arguments(extra)
    assert [item.get("function", {}).get("arguments") for item in found["tool_calls"]] == [
        '{"a": "é"}',
        "as is",
        None,
    ]
    assert found["name"] == "n"
    assert encode_arguments({"name": "n"}) == {"name": "n"}


values = st.recursive(
    st.none() | st.integers() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=2), inner, max_size=3),
    max_leaves=12,
)


@given(values)
def test_nulls_are_dropped_from_dicts_and_kept_in_lists(value: Any) -> None:
    def check(before: Any, after: Any) -> None:
        if isinstance(before, dict):
            assert list(after) == [key for key, item in before.items() if item is not None]
            for key in after:
                check(before[key], after[key])
        elif isinstance(before, list):
            assert len(after) == len(before)
            for left, right in zip(before, after, strict=True):
                check(left, right)
        else:
            assert after == before

    found = without_nulls(value)
    check(value, found)
    assert json.dumps(without_nulls(found)) == json.dumps(found)
