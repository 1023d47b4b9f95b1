"""A template that drops part of an answer is an error; dropped context is reported."""

from __future__ import annotations

from typing import Any

import pytest

from lora_runner.data import Example, Message
from lora_runner.errors import DataError
from tests.lora_runner.data.chat.conversations import (
    CALLS,
    CHATML,
    MARKED,
    THOUGHTS,
    TWO,
    answer,
    chat,
    run,
)


def test_tools_need_a_template_that_prints_them(make_tokenizer: Any, targets: Any) -> None:
    with_tools = Example(messages=TWO.messages, tools=({"name": "find"},))
    for template in (CHATML, "{# no tools #}" + CHATML):
        with pytest.raises(DataError, match="the record has tools, which the chat template does not print"):
            run(make_tokenizer(), with_tools, template=template)
    tokenizer = make_tokenizer()
    (example,) = run(tokenizer, with_tools, template="{{ tools[0].name }}\n" + CHATML).examples
    assert tokenizer.decode(example.input_ids).startswith("find\n")
    assert targets(tokenizer, example) == ["hello you<|im_end|>", "im the answer<|im_end|>"]


@pytest.mark.parametrize(
    ("example", "template", "message"),
    [
        (answer(tool_calls=CALLS), CHATML, "turn 2: .* does not print its 'tool_calls'.* into the content"),
        (answer(tool_calls=CALLS), MARKED, "turn 2: .* does not print its 'tool_calls'"),
        (answer("x", function_call=CALLS[0]), CHATML, "its 'function_call'.* write it as tool_calls"),
        (answer("x", reasoning_content="so"), CHATML, "its 'reasoning_content'.* take it out"),
        (answer("x", thinking="so"), "{{ reasoning }}" + CHATML, "its 'thinking'.* name it 'reasoning'"),
        (
            answer(tool_calls=CALLS),
            CHATML.replace(
                "{{ m['content'] }}", "{{ m['content'] }}{{ m.tool_calls and m.tool_calls[0].function.name }}"
            ),
            "does not print item 2 of its 'tool_calls'",
        ),
        (
            answer("<think>why</think>no"),
            CHATML.replace("m['content']", "m['content'].split('</think>')[-1]"),
            "the text before </think> in its content",
        ),
        (
            answer("hm <think>why</think>no"),
            CHATML.replace("m['content']", "m['content'].split('<think>')[-1]"),
            "the text before <think> in its content",
        ),
        (
            answer("lost"),
            CHATML.replace("m['content']", "m['content'] if m.role == 'user' else 'ok'"),
            "does not print its content",
        ),
    ],
)
def test_dropping_part_of_an_answer_is_an_error(
    make_tokenizer: Any, example: Example, template: str, message: str
) -> None:
    with pytest.raises(DataError, match=r"chat\.jsonl:7: .*" + message):
        run(make_tokenizer(), example, template=template)


def test_fields_that_need_not_be_rendered_are_no_error(make_tokenizer: Any) -> None:
    reads = CHATML.replace("{{ m['content'] }}", "{{ m.reasoning or '' }}{{ m.content | upper }}")
    tokenizer = make_tokenizer()
    # Two names for one thought; ids and names; a field of a turn without loss; a content that is changed.
    assert (
        len(run(tokenizer, answer("x", reasoning="so", reasoning_content="so", id="5"), template=reads)) == 1
    )
    context = Example(
        messages=(
            Message(role="assistant", content="a", train=False, extra={"thinking": "so"}),
            Message(role="user", content="x", extra={"thinking": "so"}),
            Message(role="assistant", content="b"),
        )
    )
    assert len(run(tokenizer, context, template=CHATML)) == 1


@pytest.mark.parametrize("completion_only", [True, False])
@pytest.mark.parametrize("template", [CHATML, THOUGHTS, MARKED])
def test_a_context_turn_that_is_not_rendered_is_reported(
    make_tokenizer: Any, template: str, completion_only: bool
) -> None:
    turns = (("developer", "be short"), ("user", "hello"), ("assistant", "hi"), ("tool", "after it all"))
    example, tokenizer = chat(*turns), make_tokenizer()

    def notes(text: str) -> list[str]:
        found = run(tokenizer, example, template=text, completion_only=completion_only).rendering.notes
        return [note for note in found if note.startswith("the chat template leaves out a turn of the role ")]

    assert notes(template) == notes(template.replace("m['content']", "m['content'] | upper")) == []
    (note,) = notes(template.replace(" in messages ", " in messages if m['role'] != 'developer' "))
    assert "'developer'" in note
    assert note.endswith("(1 of 1 records)")
    # What stands behind the last answer is no part of any prompt, but of a text of which all is trained.
    cut = notes(template.replace(" in messages ", " in messages if m['role'] != 'tool' "))
    assert len(cut) == (0 if completion_only else 1)
