"""Recognizing formats and converting records."""

from __future__ import annotations

from typing import Any

import pytest

from lora_runner.data.records.convert import convert, plain_alpaca_prompt
from lora_runner.data.records.example import Example, Message
from lora_runner.data.records.formats import recognize
from lora_runner.data.records.record import Origin, Record
from lora_runner.errors import DataError

TURNS = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "you"}]
SHARED = [{"from": "human", "value": "hi"}, {"from": "gpt", "value": "you"}]
CHAT = (Message(role="user", content="hi"), Message(role="assistant", content="you"))


def records(*fields: dict[str, Any]) -> list[Record]:
    return [Record(item, Origin("f.jsonl", line)) for line, item in enumerate(fields, start=1)]


def one(fields: dict[str, Any], format: str | None = None) -> Example:
    return convert(records(fields), format)[1][0]


@pytest.mark.parametrize(
    ("fields", "name"),
    [
        ({"messages": TURNS}, "messages"),
        ({"conversations": TURNS}, "messages"),
        ({"conversations": SHARED}, "sharegpt"),
        ({"messages": SHARED}, "sharegpt"),
        ({"prompt": "a", "completion": "b"}, "prompt_completion"),
        ({"prompt": "a", "messages": TURNS, "prompt_id": 5}, "messages"),
        ({"instruction": "a", "output": "b"}, "alpaca"),
        ({"instruction": "a", "input": "", "output": "b", "text": "a b"}, "alpaca"),
        ({"text": "a", "messages": None}, "text"),
    ],
)
def test_formats_are_recognized_by_their_keys(fields: dict[str, Any], name: str) -> None:
    assert recognize(records(fields, fields)) == name


def test_a_later_record_decides_between_two_formats_that_the_first_fits() -> None:
    both = {"instruction": "a", "output": "b", "text": "c"}
    assert recognize(records(both, {"text": "d"}, both)) == "text"


def test_mixed_formats_name_the_first_line_that_differs() -> None:
    mixed = records({"text": "a"}, {"text": "b"}, {"prompt": "c", "completion": "d"}, {"text": "e"})
    with pytest.raises(
        DataError, match=r"this one is 'prompt_completion', those before are 'text'"
    ) as caught:
        convert(mixed)
    assert (caught.value.path, caught.value.line) == ("f.jsonl", 3)


def test_a_record_that_fits_no_format_names_its_keys_and_the_known_formats() -> None:
    with pytest.raises(DataError) as caught:
        convert(records({"text": "a"}, {"question": "b", "answer": None}, {"x": 1}))
    assert str(caught.value) == (
        "f.jsonl:2: the record fits no known format (2 of 3 records); its keys are question, answer (null). "
        "Rename its columns to messages (a chat), prompt and completion, instruction and output, or text, "
        "or take such records out"
    )


def test_pairs_of_answers_are_counted_and_named_once() -> None:
    pair = {"prompt": "a", "chosen": "b", "rejected": "c"}
    with pytest.raises(DataError) as caught:
        convert(records(pair, pair))
    assert str(caught.value).startswith(
        "f.jsonl:1: the record is a pair of a chosen and a rejected answer (2 of 2"
    )
    assert len(str(caught.value).splitlines()) == 1


def test_records_with_the_same_problem_are_one_line() -> None:
    with pytest.raises(DataError) as caught:
        convert(records({"text": "a"}, {"text": 1}, {"text": "b"}, {"text": 2}))
    assert (
        str(caught.value) == "f.jsonl:2: text must be text, got int (2 such records, the next at f.jsonl:4)"
    )


def test_every_record_must_fit_a_named_format() -> None:
    both = {"instruction": "a", "output": "b", "text": "c"}
    assert one(both, "text") == Example(text="c")
    with pytest.raises(
        DataError, match=r"f.jsonl:2: the record does not fit the format 'alpaca', which needs"
    ):
        convert(records(both, {"text": "c"}), "alpaca")
    with pytest.raises(DataError, match=r"format 'alpacca' does not exist\. Did you mean 'alpaca'\?"):
        convert(records(both), "alpacca")


def test_messages_keep_what_templates_read() -> None:
    call = [{"type": "function", "function": {"name": "f", "arguments": {}}}]
    example = one(
        {
            "messages": [
                {
                    "role": "user",
                    "content": [{"type": "text", "text": "h"}, {"type": "text", "text": "i"}],
                    "name": None,
                },
                {"role": "assistant", "content": None, "tool_calls": call},
                {"role": "tool", "content": "4", "tool_calls": [], "name": "f"},
                {"role": "assistant", "content": "4", "weight": 0},
            ],
            "tools": '[{"name": "f"}]',
        }
    )
    assert example.messages == (
        Message(role="user", content="hi"),
        Message(role="assistant", content="", extra={"tool_calls": call}),
        Message(role="tool", content="4", extra={"name": "f"}),
        Message(role="assistant", content="4", train=False),
    )
    assert example.tools == ({"name": "f"},)


def test_sharegpt_roles_are_mapped() -> None:
    turns = [
        ("system", "s"),
        ("human", "q"),
        ("function_call", "{}"),
        ("observation", "o"),
        ("gpt", "a"),
        ("user", "u"),
    ]
    example = one({"conversations": [{"from": role, "value": text} for role, text in turns]})
    assert [m.role for m in example.messages or ()] == [
        "system",
        "user",
        "assistant",
        "tool",
        "assistant",
        "user",
    ]
    with_system = one({"system": "be brief", "conversations": SHARED, "tools": ""})
    assert with_system.messages == (Message(role="system", content="be brief"), *CHAT)
    assert with_system.tools is None


def test_turns_in_a_csv_cell_are_parsed() -> None:
    cell = '[{"role": "user", "content": "hi"}, {"role": "assistant", "content": "you"}]'
    assert one({"messages": cell}).messages == CHAT


def test_prompt_and_completion_as_texts_or_messages() -> None:
    assert one({"prompt": "[1, 2]", "completion": "[3]"}) == Example(prompt="[1, 2]", completion="[3]")
    expected = Example(messages=CHAT, num_context_messages=1)
    assert one({"prompt": TURNS[:1], "completion": TURNS[1:]}) == expected
    assert one({"prompt": "hi", "completion": TURNS[1:]}) == expected
    assert one({"prompt": TURNS[:1], "completion": "you"}) == expected


def test_alpaca_carries_a_conversation_and_a_plain_prompt() -> None:
    example = one(
        {"instruction": "Add", "input": "1 2", "output": "3", "system": "Count", "history": [["Hi", "Yes"]]}
    )
    assert [(m.role, m.content) for m in example.messages or ()] == [
        ("system", "Count"),
        ("user", "Hi"),
        ("assistant", "Yes"),
        ("user", "Add\n\n1 2"),
        ("assistant", "3"),
    ]
    assert example.num_context_messages == 4
    assert example.completion == "3"
    assert example.prompt == (
        "Count\n\n### Task\nHi\n\n### Answer\nYes\n\n### Task\nAdd\n\n### Given\n1 2\n\n### Answer\n"
    )
    assert one({"instruction": "Add", "input": None, "output": "3"}).prompt == plain_alpaca_prompt("Add")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"messages": []}, "messages must hold at least one turn"),
        ({"messages": "hi"}, "messages must be a list of turns, got str"),
        ({"messages": " "}, "messages must be a list of turns, got an empty text"),
        (
            {"messages": str(TURNS)},  # as pandas writes a column of lists into a CSV
            r"messages must be a list of turns, got text that is no JSON: \"\[\{'role': 'user'.*json.dumps",
        ),
        ({"messages": ["hi"]}, "turn 1 must be an object with 'role' and 'content', got str"),
        ({"messages": [{"content": "hi"}]}, "turn 1 has no 'role'; its keys are content"),
        ({"messages": [{"role": "user"}]}, "turn 1 has no 'content'"),
        (
            {"messages": [{"role": "usr", "content": "hi"}]},
            r"role 'usr' is not known\. Did you mean 'user'\?",
        ),
        ({"messages": [{"role": "user", "content": 5}]}, "the content of turn 1 must be text, got int"),
        ({"messages": [{"role": "user", "content": [{"type": "image"}]}]}, "parts other than text"),
        ({"messages": [{**TURNS[0], "weight": 0.5}]}, "weight must be 0 or 1, got 0.5"),
        ({"messages": TURNS, "tools": "[{"}, "tools must be a JSON list"),
        ({"messages": TURNS, "tools": ["f"]}, "tools must be a list of JSON schemas"),
        (
            {"conversations": [{"from": "gtp", "value": "hi"}]},
            r"role 'gtp' is not known\. Did you mean 'gpt'",
        ),
        ({"conversations": [{"from": "gpt"}]}, "turn 1 has no 'value'"),
        ({"prompt": "a", "completion": 5}, "completion must be text, got int"),
        ({"prompt": [], "completion": "b"}, "prompt must hold at least one turn"),
        ({"instruction": "a", "output": ["b"]}, "output must be text, got list"),
        ({"instruction": "a", "output": "b", "history": [["c"]]}, "history must be a list of"),
        ({"text": 5}, "text must be text, got int"),
        ({"text": "bad \ud800"}, r"half a character \(a lone surrogate\) at position 4"),
    ],
)
def test_bad_values_name_line_and_rule(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        convert(records(fields))
    assert caught.value.line == 1


def test_the_content_key_depends_on_content_alone() -> None:
    here, there = (
        Record({"text": "a"}, Origin(name, line)) for name, line in (("a.jsonl", 1), ("b.jsonl", 9))
    )
    keys = [convert([record])[1][0].content_key for record in (here, there)]
    assert keys[0] == keys[1]
    # Written down: it must not change between versions or machines, or evaluation sets would.
    assert keys[0] == "20256aaf4663e2c32b711006337d97cbd19652ad98716465ee86645fd4f0ce73"
    variants = [
        Example(text="a"),
        Example(prompt="a", completion=""),
        Example(messages=CHAT),
        Example(messages=CHAT, num_context_messages=1),
        Example(messages=(CHAT[0], Message(role="assistant", content="you", train=False))),
        Example(messages=CHAT, tools=({"name": "f"},)),
    ]
    assert len({example.content_key for example in variants}) == len(variants)
