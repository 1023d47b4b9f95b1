"""Exactly the assistant turns and their stop tokens carry loss, whatever the shape of the template."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lora_runner.data import Example, Message, TokenizedSet
from lora_runner.data.records.record import Origin
from lora_runner.errors import DataError
from tests.lora_runner.data.chat.conversations import (
    BRACKETS,
    CHATML,
    HEADINGS,
    MARKED,
    MARKERS,
    THOUGHTS,
    TWO,
    chat,
    run,
)


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        (CHATML, ["hello you<|im_end|>", "im the answer<|im_end|>"]),
        (BRACKETS, [" hello you</s>", " im the answer</s>"]),
        (HEADINGS, ["hello you</s>", "im the answer</s>"]),
        (
            THOUGHTS,
            ["<think>\n\n</think>\n\nhello you<|im_end|>", "<think>\n\n</think>\n\nim the answer<|im_end|>"],
        ),
        (MARKED, ["hello you</s>", "im the answer</s>"]),
        ("chatml", ["hello you<|im_end|>", "im the answer<|im_end|>"]),
    ],
    ids=["chatml", "brackets", "headings", "thoughts", "marked", "built in"],
)
def test_loss_on_every_assistant_turn(
    make_tokenizer: Any, targets: Any, template: str, expected: list[str]
) -> None:
    tokenizer = make_tokenizer()
    found = run(tokenizer, TWO, template=template).examples
    assert [turn for example in found for turn in targets(tokenizer, example)] == expected


def test_every_token_has_loss_when_asked(make_tokenizer: Any) -> None:
    (example,) = run(make_tokenizer(), TWO, template=CHATML, completion_only=False).examples
    assert list(example.labels) == [-100, *list(example.input_ids)[1:]]


@pytest.mark.parametrize("template", [CHATML, MARKED])
def test_context_and_weightless_turns_have_no_loss(make_tokenizer: Any, targets: Any, template: str) -> None:
    tokenizer = make_tokenizer()
    end = "<|im_end|>" if template == CHATML else "</s>"
    context = Example(messages=TWO.messages, num_context_messages=3)
    messages = TWO.messages or ()
    weightless = Example(
        messages=(*messages[:3], Message(role="assistant", content="im the answer", train=False)),
    )
    first, second = run(tokenizer, context, weightless, template=template).examples
    assert targets(tokenizer, first) == [f"im the answer{end}"]
    assert targets(tokenizer, second) == [f"hello you{end}"]


@pytest.mark.parametrize("template", [CHATML, BRACKETS, HEADINGS, MARKED])
def test_a_conversation_may_begin_with_the_assistant(
    make_tokenizer: Any, targets: Any, template: str
) -> None:
    tokenizer = make_tokenizer()
    greeting = chat(("assistant", "hello"), ("user", "hello you"), ("assistant", "Paris"))
    found = run(tokenizer, greeting, template=template).examples
    first, second = (turn for example in found for turn in targets(tokenizer, example))
    assert first.startswith("hello") or first == " hello</s>"
    assert second.strip().startswith("Paris")


@pytest.mark.parametrize(
    "content", ["", "assistant", "\n\nhello", "  hello  \n", "A", "<think>", "é€🙂", "{{ x }}"]
)
def test_awkward_contents_are_found(make_tokenizer: Any, targets: Any, content: str) -> None:
    tokenizer = make_tokenizer()
    example = chat(("user", content or "x"), ("assistant", content), ("user", "x"), ("assistant", content))
    for template in (CHATML, MARKED, "chatml"):
        (found,) = run(tokenizer, example, template=template).examples
        end = "</s>" if template == MARKED else "<|im_end|>"
        turns = targets(tokenizer, found)
        # A line break of the content that merges with that of the header belongs to the content.
        assert [turn.lstrip("\n") for turn in turns] == [content.lstrip("\n") + end] * 2


def test_a_header_that_contains_the_answer_has_no_loss(make_tokenizer: Any, targets: Any) -> None:
    tokenizer = make_tokenizer()
    (example,) = run(tokenizer, chat(("user", "x"), ("assistant", "Assistant")), template=HEADINGS).examples
    assert targets(tokenizer, example) == ["Assistant</s>"]


def prompt_of(tokenizer: Any, template: str, turns: int) -> list[int]:
    """What transformers gives a server for the first turns of TWO."""
    messages = [message.as_dict() for message in (TWO.messages or ())[:turns]]
    found: list[int] = tokenizer.apply_chat_template(
        messages, chat_template=template, add_generation_prompt=True, return_dict=False
    )
    return found


# The system text stands in the last question, as in some of Mistral's.
LAST = (
    "{% for m in messages %}{% if m.role == 'user' %}"
    "[Q] {{ 'Be brief. ' if loop.index > messages | length - 2 }}{{ m.content }} [/Q]"
    "{% else %} {{ m.content }}</s>{% endif %}{% endfor %}"
)


# Another blank before the header of the prompt than before that of an answer.
BLANKS = (
    "{% for m in messages %}{{ ' ' if not loop.first }}{{ m.role }}: {{ m.content }}</s>{% endfor %}"
    "{% if add_generation_prompt %}{{ '  assistant: ' }}{% endif %}"
)


@pytest.mark.parametrize("template", [THOUGHTS, "{{ messages | length }} turns\n" + CHATML, LAST, BLANKS])
def test_a_template_that_renders_earlier_turns_differently_gives_an_example_per_turn(
    make_tokenizer: Any, template: str
) -> None:
    tokenizer = make_tokenizer(bos=True)
    found = run(tokenizer, TWO, template=template)
    assert found.rendering.ways == {"per turn": (1, 2)}
    for example, turns in zip(found.examples, (1, 3), strict=True):
        prompt = prompt_of(tokenizer, template, turns)
        ids, labels = list(example.input_ids), list(example.labels)
        assert ids[: len(prompt)] == prompt, "an example begins with what a server sends"
        trained = len(ids) - labels.count(-100)
        assert labels[-trained:] == ids[-trained:]
        assert len(ids) - trained == len(prompt)


def test_loss_begins_where_the_answer_differs_from_a_servers_prompt(
    make_tokenizer: Any, targets: Any
) -> None:
    tokenizer = make_tokenizer()
    swallows = CHATML.replace("assistant\n{% endif %}", "assistant\n<think>\n{% endif %}")
    found = run(tokenizer, TWO, chat(("user", "x"), ("assistant", "<thing>")), template=swallows)
    turns = [turn for example in found.examples for turn in targets(tokenizer, example)]
    assert turns == ["hello you<|im_end|>", "im the answer<|im_end|>", "<thing><|im_end|>"]
    (note,) = found.rendering.notes
    assert note == (
        "a server's prompt continues with '<think>\\n', which the chat template does not print before the"
        " answer: the loss begins where the two differ (2 of 2 records)"
    )
    # Where the template prints the thought that the prompt opens, the answer follows the prompt.
    thought = chat(("user", "x"), ("assistant", "<think>\nyes\n</think>\nno"))
    found = run(tokenizer, thought, template=swallows)
    assert [targets(tokenizer, example) for example in found.examples] == [["yes\n</think>\nno<|im_end|>"]]
    assert found.rendering.notes == ()


def test_an_answer_that_cannot_be_separated_from_its_prompt_is_an_error(make_tokenizer: Any) -> None:
    reversed_ = "{% for m in messages[::-1] %}{{ m.role }}: {{ m.content }}</s>{% endfor %}"
    with pytest.raises(DataError, match=r"turn 2: .* cannot be separated from its prompt") as caught:
        run(make_tokenizer(), TWO, template=reversed_)
    assert (caught.value.path, caught.value.line) == ("chat.jsonl", 7)
    assert "{% generation %}" in str(caught.value)


def test_all_tokens_of_a_conversation_are_one_sequence_when_asked(make_tokenizer: Any) -> None:
    tokenizer = make_tokenizer()
    for template in (THOUGHTS, HEADINGS, MARKED):
        found = run(tokenizer, TWO, template=template, completion_only=False)
        (example,) = found.examples
        assert list(example.labels) == [-100, *list(example.input_ids)[1:]]
        assert found.rendering.num_without_stop == 0


def test_every_answer_is_checked_if_all_tokens_have_loss(make_tokenizer: Any) -> None:
    def every(example: Example, template: str) -> TokenizedSet:
        return run(make_tokenizer(), example, template=template, completion_only=False)

    # The last answer's stop token has loss although a question stands behind it.
    asked = chat(("user", "hello"), ("assistant", "hi"), ("user", "and you"))
    assert [token.text for token in every(asked, CHATML).rendering.stop_tokens] == ["<|im_end|>"]
    assert [token.text for token in every(asked, MARKERS).rendering.stop_tokens] == ["<|im_start|>"]
    assert every(asked, HEADINGS).rendering.num_without_stop == 1
    thought = Message(role="assistant", content="hi", extra={"reasoning_content": "so"})
    longer = Example(
        messages=(Message(role="user", content="x"), thought, *asked.messages), origin=Origin("chat.jsonl", 7)
    )
    with pytest.raises(DataError, match=r"chat\.jsonl:7: turn 2: .* does not print its 'reasoning_content'"):
        every(longer, CHATML)
    last_alone = CHATML.replace("{{ m['content'] }}", "{{ m.reasoning_content if loop.last }}{{ m.content }}")
    (note,) = every(longer, last_alone).rendering.notes
    assert note.startswith("the chat template prints an earlier turn differently than when")
    assert every(TWO, CHATML).rendering.notes == ()


def test_several_marks_in_a_turn_are_assigned_to_it(make_tokenizer: Any, targets: Any) -> None:
    pieces = MARKED.replace(
        "{% generation %}", "{% generation %}[{% endgeneration %}{{ 'A' }}{% generation %}"
    )
    tokenizer = make_tokenizer()
    context = Example(messages=TWO.messages, num_context_messages=3)
    (example,) = run(tokenizer, context, template=pieces).examples
    assert targets(tokenizer, example) == ["[", "im the answer</s>"]


@settings(max_examples=60, deadline=None)
@given(
    contents=st.lists(st.text("hel o\n.<|", min_size=1, max_size=8), min_size=4, max_size=4),
    space=st.sampled_from(["", "\n", " "]),
)
def test_marks_train_transformers_mask_whatever_tokens_merge(
    make_tokenizer: Any, contents: list[str], space: str
) -> None:
    # Transformers' mask ends with the first token of the last character, and makes something of empty marks;
    # ours holds all bytes of that character, and nothing of those.
    template = MARKED.replace("assistant\\n", f"assistant{space}").replace("'</s>\\n'", f"'{space}you'")
    tokenizer = make_tokenizer(bos=True)
    example = chat(*zip(("user", "assistant") * 2, contents, strict=True))
    expected = tokenizer.apply_chat_template(
        [message.as_dict() for message in example.messages or ()],
        chat_template=template,
        return_dict=True,
        return_assistant_tokens_mask=True,
    )
    for found in run(tokenizer, example, template=template).examples:
        assert list(found.input_ids) == expected["input_ids"]
        assert [label != -100 for label in found.labels] == [bool(bit) for bit in expected["assistant_masks"]]
