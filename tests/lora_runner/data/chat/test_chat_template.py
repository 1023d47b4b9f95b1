"""Where a template comes from, and that it renders as transformers does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from lora_runner.data import resolve_chat_template
from lora_runner.errors import DataError
from tests.lora_runner.data.chat.conversations import (
    BRACKETS,
    CALLS,
    CHATML,
    HEADINGS,
    MARKED,
    TWO,
    answer,
    chat,
    run,
)


def test_a_rejected_conversation_names_its_line(make_tokenizer: Any) -> None:
    with pytest.raises(
        DataError, match=r"chat\.jsonl:7: the chat template refuses .*only user and assistant"
    ):
        run(make_tokenizer(), chat(("system", "s"), ("assistant", "a")), template=BRACKETS)


def test_a_broken_template_names_its_line(make_tokenizer: Any) -> None:
    for broken in ("{% for m in messages %}\n{{ m }", "{% generation %}"):
        with pytest.raises(DataError, match="the chat template is broken at its line"):
            run(make_tokenizer(), TWO, template=broken)


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


def test_contents_are_parts_if_the_template_reads_only_parts(make_tokenizer: Any, targets: Any) -> None:
    template = (
        "{% for m in messages %}<|im_start|>{{ m.role }}\n{% for part in m.content %}"
        "{% if part.type == 'text' %}{{ part.text }}{% endif %}{% endfor %}<|im_end|>{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    tokenizer = make_tokenizer()
    (example,) = run(tokenizer, TWO, template=template).examples
    assert targets(tokenizer, example) == ["hello you<|im_end|>", "im the answer<|im_end|>"]


def test_arguments_are_text_if_the_template_concatenates_them(make_tokenizer: Any, targets: Any) -> None:
    joins = CHATML.replace(
        "{{ m['content'] }}",
        "{{ m.content }}{% for c in m.tool_calls %}{{ 'C' + c.function.arguments }}{% endfor %}",
    )
    tokenizer = make_tokenizer()
    (example,) = run(tokenizer, answer(tool_calls=CALLS[:1]), template=joins).examples
    assert targets(tokenizer, example) == ['C{"a": 1}<|im_end|>']


@pytest.mark.parametrize("template", [CHATML, BRACKETS, MARKED, "\nStart " + MARKED])
def test_ids_are_those_of_the_template(make_tokenizer: Any, template: str) -> None:
    tokenizer = make_tokenizer(bos=True, chat_template=template)
    (example,) = run(tokenizer, TWO).examples
    messages = [message.as_dict() for message in TWO.messages or ()]
    assert list(example.input_ids) == tokenizer.apply_chat_template(messages, return_dict=False)
