"""Whether a template prints all of an assistant turn: what it leaves out would be lost in silence."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from lora_runner.data.chat.chat_template import PROBE, ChatTemplate, Tools
from lora_runner.data.records.example import Message
from lora_runner.data.records.record import BadRecord

_MEANT = re.compile(r"reason|think|thought|tool_calls|function_call|tool_plan|refusal", re.IGNORECASE)
"""Names of fields that are a part of the answer; others (ids, names, dates) need not be printed."""
_REASONING = ("reasoning_content", "reasoning", "thinking")
SECOND_THOUGHT_NOTE = (
    "the chat template prints a thought of its own before the <think> of the content, which is trained as a"
    " second one; put the reasoning into the field that the template reads (reasoning_content)"
)
"""A note on answers that `prints_a_second_thought` finds."""


def answer_fields(turn: Message) -> list[str]:
    """Return the names of a turn's fields, beside its content, that are a part of the answer."""
    return [
        key
        for key, value in turn.extra.items()
        if _MEANT.search(key) and isinstance(value, str | list | dict) and value
    ]


def is_plainly_printed(turn: Message, printed: str) -> bool:
    """Return whether a turn is content alone, which stands in a text as it is but for white space."""
    return not answer_fields(turn) and _compact(turn.content) in _compact(printed)


def prints_a_second_thought(turn: Message, words: str) -> bool:
    """Return whether the words of a turn close more thoughts than its content, which closes one too."""
    return 0 < turn.content.count("</think>") < words.count("</think>")


def check_tools_printed(template: ChatTemplate, messages: Sequence[Message], tools: Tools) -> None:
    """Check that the functions that a record offers are printed. Raises BadRecord when they are not."""
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
    """Return a note for each role of which a turn that is no answer leaves no trace in what is printed.

    Some templates skip roles that they do not know (developer), or a system turn after the first. A server's
    prompt lacks them too, so that is no error.
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
            continue  # it reads what it refuses
    return tuple(
        f"the chat template leaves out a turn of the role {role!r}, so the model never sees what stands in it"
        for role in roles
    )


def check_turn_printed(
    template: ChatTemplate, messages: Sequence[Message], number: int, tools: Tools, printed: str, start: int
) -> None:
    """Check that the last of `messages`[: number + 1] stands in full in what is printed for them.

    `printed` is that text and `start` a place before the turn's words in it. Raises BadRecord with the turn,
    the field and what to do.
    """
    *others, turn = messages[: number + 1]
    place = f"turn {number + 1}: the chat template does not print"

    def without(changed: Message) -> str | None:
        try:
            return template.render([*others, changed], tools)
        except BadRecord:
            return None  # the template cannot do without what was taken away, so it reads it

    for key in answer_fields(turn):
        # Some records have their reasoning under two names; one of them is enough.
        twins = {name for name, value in turn.extra.items() if value == turn.extra[key]}
        rest = {name: value for name, value in turn.extra.items() if name not in twins}
        if without(replace(turn, extra=rest)) == printed:
            raise BadRecord(f"{place} its {key!r}, so that would not be trained; {_advice(key, template)}")
        for item in _items_left_out(turn, key, printed, without):
            raise BadRecord(
                f"{place} item {item + 1} of its {key!r}, so that would not be trained; leave one in a"
                " turn, or set another chat_template"
            )
    if _compact(turn.content) in _compact(printed[start:]):
        return
    for changed, part in _marked_parts(turn.content):
        if without(replace(turn, content=changed)) == printed:
            raise BadRecord(
                f"{place} {part}, so that would not be trained; take it out, or set a chat_template that"
                " prints it"
            )


def _marked_parts(content: str) -> Iterator[tuple[str, str]]:
    """Yield the content with a mark in a part that a template may drop, and the part's name."""
    yield content + PROBE, "its content"
    thought, tag, answer = content.rpartition("</think>")
    if tag:
        yield f"{thought}{PROBE}{tag}{answer}", "what stands before </think> in its content"
    before, tag, _ = content.partition("<think>")
    if tag and before.strip():
        yield f"{PROBE}{content}", "what stands before <think> in its content"


def _items_left_out(turn: Message, key: str, printed: str, without: Any) -> list[int]:
    items = turn.extra[key]
    if not isinstance(items, list) or len(items) < 2:
        return []
    return [
        place
        for place in range(len(items))
        if without(replace(turn, extra={**turn.extra, key: items[:place] + items[place + 1 :]})) == printed
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
    """A text without its white space, which templates trim and change."""
    return "".join(text.split())
