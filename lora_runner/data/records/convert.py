"""Records of each format -> Examples."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from files_and_text.choices import DATA_FORMATS
from files_and_text.nearest_name import nearest
from lora_runner.data.records.example import Example, Message
from lora_runner.data.records.formats import (
    NEEDS,
    TURN_KEYS,
    formats_of,
    key_list,
    parse_json_list,
    recognize,
)
from lora_runner.data.records.record import BadRecord, Origin, Problem, Record, parse_json, problems_error
from lora_runner.data.records.tool_calls import decode_arguments, without_nulls
from lora_runner.errors import DataError

ROLES = ("system", "developer", "user", "assistant", "tool", "function", "ipython")
"""Roles that chat templates know; ShareGPT's names are mapped to them."""

_ROLE_OF = {
    "human": "user",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "model": "assistant",
    "bot": "assistant",
    "function_call": "assistant",
    "observation": "tool",
    "function_response": "tool",
}


def convert(records: Sequence[Record], format: str | None = None) -> tuple[str, list[Example]]:
    """Return the format, named or recognized from all records, and the records as Examples.

    Raises DataError for records that do not fit the format, mixed formats, and wrong roles or types.
    """
    name = recognize(records) if format is None else format
    if name not in DATA_FORMATS:
        raise DataError(f"format {name!r} does not exist.{nearest(name, DATA_FORMATS)}")
    examples: list[Example] = []
    problems: list[Problem] = []
    for record in records:
        try:
            if name not in formats_of(record.fields):
                needs = f"which needs {NEEDS[name]}; {key_list(record.fields)}"
                raise BadRecord(f"the record does not fit the format {name!r}, {needs}")
            example = _CONVERTERS[name](record.fields, record.origin)
            examples.append(replace(example, fields=record.fields))
        except BadRecord as error:
            problems.append((record.origin, str(error)))
    if problems:
        raise problems_error(problems)
    return name, examples


def plain_alpaca_prompt(
    instruction: str, given: str = "", system: str = "", history: Sequence[Sequence[str]] = ()
) -> str:
    """Return the prompt of an alpaca record, for tokenizers without a chat template; the output follows it.

    Our own layout: the system text, then per exchange "### Task", "### Given" (if there is an input) and
    "### Answer", each heading on its own line above its text, with a blank line between the parts.
    """
    parts = [system] if system else []
    for question, answer in history:
        parts += [f"### Task\n{question}", f"### Answer\n{answer}"]
    parts.append(f"### Task\n{instruction}")
    if given:
        parts.append(f"### Given\n{given}")
    return "\n\n".join([*parts, "### Answer\n"])


def _text(value: Any, name: str) -> str:
    if not isinstance(value, str):
        raise BadRecord(f"{name} must be text, got {type(value).__name__}")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise BadRecord(
            f"{name} holds half a character (a lone surrogate) at position {error.start}"
        ) from error
    return value


def _optional_text(fields: Mapping[str, Any], name: str) -> str:
    value = fields.get(name)
    return "" if value is None else _text(value, name)


def _role(value: Any) -> str:
    name = _text(value, "the role of a turn")
    role = _ROLE_OF.get(name, name)
    if role not in ROLES:
        raise BadRecord(f"role {name!r} is not known.{nearest(name, (*ROLES, *_ROLE_OF))}")
    return role


def _content(value: Any, name: str) -> str:
    if isinstance(value, list):
        if not all(isinstance(part, dict) and part.get("type", "text") == "text" for part in value):
            raise BadRecord(f"{name} must be text; parts other than text (images, audio) are not supported")
        return "".join(_text(part.get("text"), f"a part of {name}") for part in value)
    return _text(value, name)


def _message(item: Any, number: int, role_key: str = "role", content_key: str = "content") -> Message:
    turn = f"turn {number}"
    if not isinstance(item, dict):
        raise BadRecord(
            f"{turn} must be an object with {role_key!r} and {content_key!r}, got {type(item).__name__}"
        )
    known = without_nulls(item)
    if role_key not in known:
        raise BadRecord(f"{turn} has no {role_key!r}; {key_list(item)}")
    weight = known.pop("weight", 1)
    if weight not in (0, 1):
        raise BadRecord(f"{turn}: weight must be 0 or 1, got {weight!r}")
    role = _role(known.pop(role_key))
    content = known.pop(content_key, None)
    if content is None and not (known.get("tool_calls") or known.get("function_call")):
        raise BadRecord(f"{turn} has no {content_key!r}; {key_list(item)}")
    extra = decode_arguments({key: value for key, value in known.items() if value not in ([], {})})
    return Message(
        role=role,
        content="" if content is None else _content(content, f"the {content_key} of {turn}"),
        train=bool(weight),
        extra=extra,
    )


def _conversation(
    value: Any, name: str, role_key: str = "role", content_key: str = "content"
) -> tuple[Message, ...]:
    turns = parse_json_list(value)
    if not isinstance(turns, list):
        got = type(value).__name__
        if isinstance(turns, str) and not turns.strip():
            got = "an empty text"
        elif isinstance(turns, str) and turns.lstrip().startswith("["):
            got = f"text that is no JSON: {turns.strip()[:30]!r}. Write the cells of a CSV with json.dumps"
        raise BadRecord(f"{name} must be a list of turns, got {got}")
    if not turns:
        raise BadRecord(f"{name} must hold at least one turn, got an empty list")
    return tuple(_message(turn, number, role_key, content_key) for number, turn in enumerate(turns, start=1))


def _tools(fields: Mapping[str, Any]) -> tuple[Mapping[str, Any], ...] | None:
    value = fields.get("tools")
    if isinstance(value, str):
        try:
            value = parse_json(value) if value.strip() else None
        except json.JSONDecodeError as error:
            raise BadRecord(f"tools must be a JSON list: {error}") from error
    if not value:
        return None
    if not isinstance(value, list) or not all(isinstance(tool, dict) for tool in value):
        raise BadRecord("tools must be a list of JSON schemas (objects)")
    return tuple(without_nulls(value))


def _from_messages(fields: Mapping[str, Any], origin: Origin) -> Example:
    key = next(key for key in TURN_KEYS if fields.get(key) is not None)
    return Example(messages=_conversation(fields[key], key), tools=_tools(fields), origin=origin)


def _from_sharegpt(fields: Mapping[str, Any], origin: Origin) -> Example:
    key = next(key for key in TURN_KEYS if fields.get(key) is not None)
    messages = _conversation(fields[key], key, "from", "value")
    if system := _optional_text(fields, "system"):
        messages = (Message(role="system", content=system), *messages)
    return Example(messages=messages, tools=_tools(fields), origin=origin)


def _from_prompt_completion(fields: Mapping[str, Any], origin: Origin) -> Example:
    # A text that happens to be a JSON list stays text: unlike a cell of `messages`, it may be meant so.
    prompt, completion = fields["prompt"], fields["completion"]
    if not isinstance(prompt, list) and not isinstance(completion, list):
        return Example(
            prompt=_optional_text(fields, "prompt"),
            completion=_optional_text(fields, "completion"),
            origin=origin,
        )
    if not isinstance(prompt, list):
        prompt = [{"role": "user", "content": "" if prompt is None else prompt}]
    if not isinstance(completion, list):
        completion = [{"role": "assistant", "content": "" if completion is None else completion}]
    context = _conversation(prompt, "prompt")
    return Example(
        messages=(*context, *_conversation(completion, "completion")),
        num_context_messages=len(context),
        tools=_tools(fields),
        origin=origin,
    )


def _from_alpaca(fields: Mapping[str, Any], origin: Origin) -> Example:
    instruction, output = _optional_text(fields, "instruction"), _optional_text(fields, "output")
    given, system = _optional_text(fields, "input"), _optional_text(fields, "system")
    history = parse_json_list(fields.get("history")) or []
    pairs = isinstance(history, list) and all(
        isinstance(pair, list | tuple) and len(pair) == 2 for pair in history
    )
    if not pairs:
        raise BadRecord("history must be a list of [question, answer] pairs")
    past = [tuple(_text(part, "a part of history") for part in pair) for pair in history]
    messages = [Message(role="system", content=system)] if system else []
    for question, answer in past:
        messages += [Message(role="user", content=question), Message(role="assistant", content=answer)]
    messages.append(Message(role="user", content=f"{instruction}\n\n{given}" if given else instruction))
    return Example(
        messages=(*messages, Message(role="assistant", content=output)),
        num_context_messages=len(messages),
        prompt=plain_alpaca_prompt(instruction, given, system, past),
        completion=output,
        origin=origin,
    )


def _from_text(fields: Mapping[str, Any], origin: Origin) -> Example:
    return Example(text=_optional_text(fields, "text"), origin=origin)


_CONVERTERS: dict[str, Callable[[Mapping[str, Any], Origin], Example]] = {
    "messages": _from_messages,
    "sharegpt": _from_sharegpt,
    "prompt_completion": _from_prompt_completion,
    "alpaca": _from_alpaca,
    "text": _from_text,
}
