"""Chat templates of the shapes found in the wild: exactly the assistant's words and its end-of-turn carry
loss."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from lora_runner.data import Example, Message, TokenizedSet, resolve_chat_template, tokenise
from lora_runner.data.records import Origin
from lora_runner.errors import DataError

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
# The header of the answer stands at the end of the user's turn, the answer's own blank before it.
BRACKETS = (
    "{{ bos_token }}{% for m in messages %}{% if m['role'] == 'user' %}[Q] {{ m['content'] }} [/Q]"
    "{% elif m['role'] == 'assistant' %} {{ m['content'] }}{{ eos_token }}"
    "{% else %}{{ raise_exception('only user and assistant') }}{% endif %}{% endfor %}"
)
# No generation prompt at all, though there is a header.
HEADINGS = (
    "{% for m in messages %}### {{ m['role'] | capitalize }}:\n{{ m['content'] | trim }}\n\n{% endfor %}"
)
# Only the last answer has a (here empty) thought.
THOUGHTS = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n"
    "{% if m['role'] == 'assistant' and loop.last %}<think>\n\n</think>\n\n{% endif %}"
    "{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
MARKED = (
    "\n{%- for m in messages %}\n"
    "    {%- if m['role'] == 'assistant' %}\n"
    "        {{- '<|im_start|>assistant\\n' }}{% generation %}{{ m['content'] }}{% endgeneration %}\n"
    "        {{- '</s>\\n' }}\n"
    "    {%- else %}\n"
    "        {{- '<|im_start|>' + m['role'] + '\\n' + m['content'] + '<|im_end|>\\n' }}\n"
    "    {%- endif %}\n"
    "{%- endfor %}\n"
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{% endif %}"
)


def chat(*turns: tuple[str, str], **more: Any) -> Example:
    messages = tuple(Message(role=role, content=content) for role, content in turns)
    return Example(messages=messages, origin=Origin("chat.jsonl", 7), **more)


TWO = chat(
    ("user", "hello"), ("assistant", "hello you"), ("user", "what is it"), ("assistant", "im the answer")
)


def run(tokenizer: Any, *examples: Example, template: str | None = None, **options: Any) -> TokenizedSet:
    options = {"max_length": 500, **options}
    found = resolve_chat_template(template, tokenizer)
    return tokenise(examples, tokenizer, source="chat.jsonl", chat_template=found, **options)


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        (CHATML, ["hello you<|im_end|>", "im the answer<|im_end|>"]),
        (BRACKETS, [" hello you</s>", " im the answer</s>"]),
        (HEADINGS, ["hello you\n\n", "im the answer\n\n"]),
        (THOUGHTS, ["hello you<|im_end|>", "<think>\n\n</think>\n\nim the answer<|im_end|>"]),
        (MARKED, ["hello you</s>", "im the answer</s>"]),
        ("chatml", ["hello you<|im_end|>", "im the answer<|im_end|>"]),
    ],
    ids=["chatml", "brackets", "headings", "thoughts", "marked", "built in"],
)
def test_loss_on_every_assistant_turn(
    make_tokenizer: Any, targets: Any, template: str, expected: list[str]
) -> None:
    tokenizer = make_tokenizer()
    (example,) = run(tokenizer, TWO, template=template).examples
    assert targets(tokenizer, example) == expected


@pytest.mark.parametrize("template", [CHATML, BRACKETS, HEADINGS, THOUGHTS, MARKED, "\nStart " + MARKED])
def test_ids_are_those_of_the_template(make_tokenizer: Any, template: str) -> None:
    tokenizer = make_tokenizer(bos=True, chat_template=template)
    (example,) = run(tokenizer, TWO).examples
    messages = [message.as_dict() for message in TWO.messages or ()]
    assert list(example.input_ids) == tokenizer.apply_chat_template(messages, return_dict=False)


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
    (example,) = run(tokenizer, greeting, template=template).examples
    first, second = targets(tokenizer, example)
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


def test_the_header_is_no_answer_even_where_it_holds_its_words(make_tokenizer: Any, targets: Any) -> None:
    tokenizer = make_tokenizer()
    (example,) = run(tokenizer, chat(("user", "x"), ("assistant", "Assistant")), template=HEADINGS).examples
    assert targets(tokenizer, example) == ["Assistant\n\n"]


def test_a_template_that_is_not_prefix_consistent_is_refused(make_tokenizer: Any) -> None:
    numbered = "{{ messages | length }} turns\n" + CHATML
    with pytest.raises(DataError, match=r"not prefix-consistent.* the first 2 of 4 messages") as caught:
        run(make_tokenizer(), TWO, template=numbered)
    assert (caught.value.path, caught.value.line) == ("chat.jsonl", 7)
    assert "{% generation %}" in str(caught.value)
    swallows = CHATML.replace("assistant\n{% endif %}", "assistant\n<think>{% endif %}")
    with pytest.raises(DataError, match="not prefix-consistent"):
        run(make_tokenizer(), TWO, template=swallows)


def test_what_the_template_refuses_names_the_line(make_tokenizer: Any) -> None:
    with pytest.raises(
        DataError, match=r"chat\.jsonl:7: the chat template refuses .*only user and assistant"
    ):
        run(make_tokenizer(), chat(("system", "s"), ("assistant", "a")), template=BRACKETS)


def test_a_broken_template_names_its_line(make_tokenizer: Any) -> None:
    for broken in ("{% for m in messages %}\n{{ m }", "{% generation %}"):
        with pytest.raises(DataError, match="the chat template is broken at its line"):
            run(make_tokenizer(), TWO, template=broken)


def test_tools_need_a_template_that_prints_them(make_tokenizer: Any, targets: Any) -> None:
    with_tools = Example(messages=TWO.messages, tools=({"name": "find"},))
    with pytest.raises(DataError, match="the record has tools, which the chat template does not print"):
        run(make_tokenizer(), with_tools, template=CHATML)
    tokenizer = make_tokenizer()
    (example,) = run(tokenizer, with_tools, template="{{ tools[0].name }}\n" + CHATML).examples
    assert tokenizer.decode(example.input_ids).startswith("find\n")
    assert targets(tokenizer, example) == ["hello you<|im_end|>", "im the answer<|im_end|>"]


@pytest.mark.parametrize("rest", [CHATML, MARKED])
def test_todays_date_does_not_reach_the_data(make_tokenizer: Any, rest: str) -> None:
    tokenizer = make_tokenizer()
    template = "{% if strftime_now is defined %}Today is {{ strftime_now('%d %b %Y') }}.\n{% endif %}" + rest
    (example,) = run(tokenizer, TWO, template=template).examples
    assert tokenizer.decode(example.input_ids).startswith("Today is 26 Jul 2024.\n")


def test_where_a_template_comes_from(make_tokenizer: Any, tmp_path: Path) -> None:
    path = tmp_path / "mine.jinja"
    path.write_text(BRACKETS)
    tokenizer = make_tokenizer(chat_template=CHATML)
    assert resolve_chat_template(None, tokenizer) == CHATML
    assert resolve_chat_template(str(path), tokenizer) == BRACKETS
    assert resolve_chat_template(HEADINGS, tokenizer) == HEADINGS
    assert resolve_chat_template(None, make_tokenizer()) is None
    tokenizer.chat_template = {"default": BRACKETS, "tool_use": CHATML}
    assert resolve_chat_template(None, tokenizer) == BRACKETS
    with pytest.raises(DataError, match="there is no file 'chatlm'"):
        resolve_chat_template("chatlm", tokenizer)


def test_no_template_says_what_to_set(make_tokenizer: Any) -> None:
    with pytest.raises(DataError, match=r"chat\.jsonl:7: .*set chat_template to jinja text.* chatml"):
        run(make_tokenizer(), TWO)


@pytest.mark.parametrize("bos", [False, True])
def test_the_built_in_template_begins_as_the_tokenizer_does(make_tokenizer: Any, bos: bool) -> None:
    tokenizer = make_tokenizer(bos=bos)
    (example,) = run(tokenizer, TWO, template="chatml").examples
    assert (example.input_ids[0] == tokenizer.bos_token_id) is bos
    assert list(example.input_ids).count(tokenizer.bos_token_id) == bos
