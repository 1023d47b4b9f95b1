"""The families' stock templates, and TRL's marked versions of them, against transformers' assistant masks."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from lora_runner.data import IGNORED
from lora_runner.data.chat.chat_template import ChatTemplate
from lora_runner.errors import DataError
from tests.lora_runner.data.chat.families import (
    RECORDS,
    example,
    family_tokenizer,
    outcome,
    page,
    templates,
    tokenized_record,
)

MARKED = sorted(
    name for name, text in templates().items() if "{% generation" in text or "{%- generation" in text
)
STOCK = sorted(name for name in templates() if not name.endswith("_training"))
TWINS = sorted(name for name in STOCK if f"{name}_training" in templates())


def masked(name: str, record: dict[str, Any]) -> tuple[list[int], list[int]]:
    """Ids and assistant mask of transformers."""
    made = example(record)
    tokenizer = family_tokenizer()
    text = re.sub(r"strftime_now\(.%Y-%m-%d.\)", "'2024-07-26'", templates()[name])
    turns = [message.as_dict() for message in made.messages or ()]
    if ChatTemplate(tokenizer, text).wants_parts:
        turns = [turn | {"content": [{"type": "text", "text": turn["content"]}]} for turn in turns]
    found = tokenizer.apply_chat_template(
        turns,
        tools=list(made.tools or []) or None,
        chat_template=text,
        return_dict=True,
        return_assistant_tokens_mask=True,
    )
    return found["input_ids"], found["assistant_masks"]


@pytest.mark.parametrize("name", MARKED)
def test_a_marked_template_trains_transformers_own_mask(name: str) -> None:
    compared = 0
    for record in RECORDS.values():
        try:
            found = tokenized_record(record, templates()[name])
        except DataError:
            continue
        ids, mask = masked(name, record)
        (ours,) = found.examples
        assert list(ours.input_ids) == ids
        trained = [label != IGNORED for label in ours.labels]
        # Every one of TRL's marks holds the token that ends the turn, so nothing is added to the mask.
        assert trained == [bool(bit) for bit in mask]
        assert found.rendering.num_without_stop == 0
        compared += 1
    assert compared >= 2


def words(found: Any) -> list[str]:
    """The trained text of each turn, without the white space that some marks hold behind the stop token."""
    tokenizer = family_tokenizer()
    turns: list[list[int]] = []
    for one in found.examples:
        before = IGNORED
        for label in one.labels:
            if label != IGNORED:
                if before == IGNORED:
                    turns.append([])
                turns[-1].append(label)
            before = label
    return [tokenizer.decode(turn, clean_up_tokenization_spaces=False).rstrip() for turn in turns]


def last_turns(record: dict[str, Any]) -> list[dict[str, Any]]:
    """The record cut after each of its assistant turns."""
    turns = record["messages"]
    return [
        record | {"messages": turns[: place + 1]}
        for place, turn in enumerate(turns)
        if turn["role"] == "assistant"
    ]


@pytest.mark.parametrize("name", TWINS)
def test_a_stock_template_trains_the_same_text_as_its_marked_version(name: str) -> None:
    """Each turn as the twin marks it when it is last; what a server's prompt has already is no word."""
    for record in RECORDS.values():
        try:
            ours = words(tokenized_record(record, templates()[name]))
        except DataError:
            continue
        twins = [
            words(tokenized_record(cut, templates()[f"{name}_training"]))[-1] for cut in last_turns(record)
        ]
        assert len(ours) == len(twins)
        for our, twin, cut in zip(ours, twins, last_turns(record), strict=True):
            assert words(tokenized_record(cut, templates()[name]))[-1] == our, (
                "the same with and without turns behind"
            )
            made = example(cut)
            prompt = ChatTemplate(family_tokenizer(), templates()[name]).render(
                (made.messages or ())[:-1], made.tools, add_generation_prompt=True
            )
            # Gemma 4 hands its calls over with a token that only the stock template counts as the model's.
            our = our.removesuffix("<|tool_response>")
            assert twin.endswith(our)
            assert twin.removesuffix(our) in prompt


@pytest.mark.parametrize("name", STOCK)
def test_the_text_before_a_trained_turn_is_a_servers_prompt(name: str) -> None:
    """Token by token, for the templates that do not mark: `apply_chat_template` of the turns before it."""
    template = ChatTemplate(family_tokenizer(), templates()[name])
    if template.is_marked:
        return
    for record in RECORDS.values():
        try:
            found = tokenized_record(record, templates()[name])
        except DataError:
            continue
        if found.rendering.notes:  # which say that the answer does not follow the prompt
            continue
        made = example(record)
        turns = [place for place, turn in enumerate(record["messages"]) if turn["role"] == "assistant"]
        contexts = [before for one in found.examples for before in before_runs(one)]
        assert len(contexts) == len(turns)
        for context, turn in zip(contexts, turns, strict=True):
            prompt = template.render((made.messages or ())[:turn], made.tools, add_generation_prompt=True)
            ids = family_tokenizer()(prompt, add_special_tokens=False).input_ids
            rest = family_tokenizer().decode(context[len(ids) :])
            assert context[: len(ids)] == ids
            # LLaVA-NeXT has no generation prompt, DiffusionGemma none after a tool's result.
            assert rest in ("", "<|turn>model\n")


@pytest.mark.parametrize(
    ("name", "thought", "answers"),
    [
        (
            "gptoss",
            {"thinking": "Rain?"},
            [
                "<|channel|>final<|message|>No, wet.<|return|>",
                "<|channel|>final<|message|>Take a coat.<|return|>",
            ],
        ),
        (
            "gptoss",
            {"content": "I look."},
            [
                "<|channel|>final<|message|>No, wet.<|return|>",
                "<|channel|>final<|message|>Take a coat.<|return|>",
            ],
        ),
        (
            "qwen3",
            {"reasoning_content": "Rain?"},
            [
                "<think>\n\n</think>\n\nNo, wet.<|im_end|>",
                "<think>\n\n</think>\n\nTake a coat.<|im_end|>",
            ],
        ),
    ],
)
def test_an_answer_is_found_if_it_changes_how_earlier_turns_are_rendered(
    name: str, thought: dict[str, str], answers: list[str]
) -> None:
    """gpt-oss leaves the thought before a call out once an answer is there; Qwen3 the empty thought of a turn
    that another follows. Between the header and the answer's words both print more."""
    user, call, result, answer = RECORDS["tools"]["messages"]
    turns = [user, call | thought, result, answer, {"role": "assistant", "content": "Take a coat."}]
    record = RECORDS["tools"] | {"messages": turns}
    found = tokenized_record(record, templates()[name])
    assert words(found)[1:] == answers
    template, made = ChatTemplate(family_tokenizer(), templates()[name]), example(record)
    for one, turn in zip(found.examples, (1, 3, 4), strict=True):
        prompt = template.render((made.messages or ())[:turn], made.tools, add_generation_prompt=True)
        assert before_runs(one) == [family_tokenizer()(prompt, add_special_tokens=False).input_ids]


def before_runs(one: Any) -> list[list[int]]:
    """The ids before each run of tokens with loss."""
    labels = list(one.labels)
    starts = [p for p, label in enumerate(labels) if label != IGNORED and labels[p - 1] == IGNORED]
    return [list(one.input_ids)[:start] for start in starts]


def test_the_page_of_templates_is_what_is_computed() -> None:
    """`python -m tests.lora_runner.data.chat.families > docs/templates.md` writes it anew."""
    written = Path(__file__).parents[4] / "docs" / "templates.md"
    assert written.read_text(encoding="utf-8").splitlines() == list(page())


def test_templates_that_render_ordinary_conversations_are_accepted() -> None:
    assert len(STOCK) >= 25
    refused = {
        (name, kind): found
        for name in STOCK
        for kind in ("one turn", "system, two turns")
        if (found := outcome(RECORDS[kind], templates()[name])).startswith("refused")
    }
    assert refused == {("gemma", "system, two turns"): "refused: System role not supported"}
