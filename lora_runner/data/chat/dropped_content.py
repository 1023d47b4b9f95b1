"""Checks that a chat template renders all of a record: what it drops would silently not be trained."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from lora_runner.data.chat.chat_template import PROBE, ChatTemplate, Tools
from lora_runner.data.records.example import Message
from lora_runner.data.records.record import BadRecord

_ANSWER_FIELDS = re.compile(r"reason|think|thought|tool_calls|function_call|tool_plan|refusal", re.IGNORECASE)
"""Fields that are part of the answer; others (ids, names, dates) need not be rendered."""
_REASONING = ("reasoning_content", "reasoning", "thinking")
SECOND_THOUGHT_NOTE = (
    "the chat template prints a thought of its own before the <think> of the content, which is trained as a"
    " second one; put the reasoning into the field that the template reads (reasoning_content)"
)
"""Remark on answers that `prints_a_second_thought` finds."""


def answer_fields(turn: Message) -> list[str]:
    """Return the names of a turn's fields, besides its content, that are part of the answer."""
    return [
        key
        for key, value in turn.extra.items()
        if _ANSWER_FIELDS.search(key) and isinstance(value, str | list | dict) and value
    ]


def is_plainly_printed(turn: Message, printed: str) -> bool:
    """Return whether a turn has only content, and the text contains it except for white space."""
    return not answer_fields(turn) and _compact(turn.content) in _compact(printed)


def prints_a_second_thought(turn: Message, words: str) -> bool:
    """Return whether the rendered turn has more </think> tags than its content, which has at least one."""
    return 0 < turn.content.count("</think>") < words.count("</think>")


def check_tools_printed(template: ChatTemplate, messages: Sequence[Message], tools: Tools) -> None:
    """Raise BadRecord if the template does not print the record's tools."""
    if not tools:
        return
    unprinted = "tools" not in template.text
    if not unprinted:
        with_tools = template.render(messages, tools)
        try:
            unprinted = template.render(messages) == with_tools
        except BadRecord:
            return
    if unprinted:
        raise BadRecord(
            "the record has tools, which the chat template does not print; set another chat_template"
        )


def unprinted_context(
    template: ChatTemplate, messages: Sequence[Message], tools: Tools, printed: str
) -> tuple[str, ...]:
    """Return a remark for each role, other than assistant, of which a turn is not rendered at all.

    Some templates skip unknown roles (developer) or a second system turn. A server's prompt lacks them too,
    so this is not an error.
    """
    compact, roles = _compact(printed), dict[str, None]()
    for number, turn in enumerate(messages):
        if turn.role in ("assistant", *roles) or _compact(turn.content) in compact:
            continue
        marked = [*messages]
        marked[number] = replace(turn, content=turn.content + PROBE)
        try:
            if template.render(marked, tools) == template.render(messages, tools):
                roles[turn.role] = None
        except BadRecord:
            continue  # it reads what it rejects
    return tuple(
        f"the chat template leaves out a turn of the role {role!r}, so the model never sees it"
        for role in roles
    )


def check_turn_printed(
    template: ChatTemplate, messages: Sequence[Message], number: int, tools: Tools, printed: str, start: int
) -> None:
    """Raise BadRecord unless `messages[number]` is rendered in full; it names turn, field and remedy.

    `printed` is the text of `messages[: number + 1]`, and `start` an offset in it before the turn's content.
    """
    *others, turn = messages[: number + 1]
    not_printed = f"turn {number + 1}: the chat template does not print"

    def without(changed: Message) -> str | None:
        try:
            return template.render([*others, changed], tools)
        except BadRecord:
            return None  # the template rejects the turn without it, so it reads it

    for key in answer_fields(turn):
        # Some records have their reasoning under two names; one is enough.
        twins = {name for name, value in turn.extra.items() if value == turn.extra[key]}
        rest = {name: value for name, value in turn.extra.items() if name not in twins}
        if without(replace(turn, extra=rest)) == printed:
            raise BadRecord(
                f"{not_printed} its {key!r}, so that would not be trained; {_advice(key, template)}"
            )
        for item in _items_left_out(turn, key, printed, without):
            raise BadRecord(
                f"{not_printed} item {item + 1} of its {key!r}, so that would not be trained; leave one in a"
                " turn, or set another chat_template"
            )
    if _compact(turn.content) in _compact(printed[start:]):
        return
    for changed, part in _marked_parts(turn.content):
        if without(replace(turn, content=changed)) == printed:
            raise BadRecord(
                f"{not_printed} {part}, so that would not be trained; take it out, or set a chat_template"
                " that prints it"
            )


def _marked_parts(content: str) -> Iterator[tuple[str, str]]:
    """Yield the content with a mark in a part that templates may drop, and the name of the part."""
    yield content + PROBE, "its content"
    thought, tag, answer = content.rpartition("</think>")
    if tag:
        yield f"{thought}{PROBE}{tag}{answer}", "the text before </think> in its content"
    before, tag, _ = content.partition("<think>")
    if tag and before.strip():
        yield f"{PROBE}{content}", "the text before <think> in its content"


def _items_left_out(turn: Message, key: str, printed: str, without: Any) -> list[int]:
    items = turn.extra[key]
    if not isinstance(items, list) or len(items) < 2:
        return []
    return [
        index
        for index in range(len(items))
        if without(replace(turn, extra={**turn.extra, key: items[:index] + items[index + 1 :]})) == printed
    ]


def _advice(key: str, template: ChatTemplate) -> str:
    if key == "function_call":
        return 'write it as tool_calls: [{"type": "function", "function": {"name", "arguments"}}]'
    if key == "tool_calls":
        return "write the calls into the content as the model shall print them, or set another chat_template"
    read = [name for name in _REASONING if re.search(rf"\b{name}\b", template.text) and name != key]
    if read:
        return f"name it {read[0]!r}, which the template reads, or set another chat_template"
    return "take it out, write it into the content as the model shall print it, or set another chat_template"


def _compact(text: str) -> str:
    """Remove white space, which templates trim and change."""
    return "".join(text.split())
