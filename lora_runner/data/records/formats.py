"""Records in the formats people bring -> Examples."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from files_and_text.choices import DATA_FORMATS
from files_and_text.nearest_name import nearest
from lora_runner.data.records.record import (
    BadRecord,
    Origin,
    Problem,
    Record,
    parse_json,
    problems_error,
)
from lora_runner.data.records.tool_values import decode_arguments, without_nulls
from lora_runner.errors import DataError

NEEDS = {
    "messages": 'messages: [{"role", "content"}, ...]',
    "sharegpt": 'conversations: [{"from", "value"}, ...]',
    "prompt_completion": "prompt and completion (texts or lists of messages)",
    "alpaca": "instruction and output (also input, system, history)",
    "text": "text",
}
"""What a record of each format holds, for error messages."""

ROLES = ("system", "developer", "user", "assistant", "tool", "function", "ipython")
"""Roles that chat templates know; the names of ShareGPT are turned into them."""

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
TURN_KEYS = ("messages", "conversations", "conversation")
_TEXTS = {
    "prompt_completion": {"prompt", "completion"},
    "alpaca": {"instruction", "output"},
    "text": {"text"},
}
"""Columns whose values may be null."""
_TURN_STYLES = (
    ("messages", "role", "from"),
    ("sharegpt", "from", "role"),
)  # (format, its key, the other's key)


@dataclass(frozen=True, kw_only=True)
class Message:
    """One turn of a conversation."""

    role: str
    content: str
    train: bool = True
    """False (`"weight": 0` in the data): an assistant turn that is context only."""
    extra: Mapping[str, Any] = field(default_factory=dict)
    """Other fields for the chat template: tool_calls, name, tool_call_id, reasoning_content."""

    def as_dict(self) -> dict[str, Any]:
        """Return the form that chat templates read."""
        return {"role": self.role, "content": self.content, **self.extra}


@dataclass(frozen=True, kw_only=True)
class Example:
    """One record in a form that can be tokenised: a conversation, a prompt with its completion, or a text.

    Alpaca records carry both a conversation (for tokenizers with a chat template) and a prompt with its
    completion.
    """

    messages: tuple[Message, ...] | None = None
    prompt: str | None = None
    completion: str | None = None
    text: str | None = None
    tools: tuple[Mapping[str, Any], ...] | None = None
    """JSON schemas of functions, for the chat template."""
    num_context_messages: int = 0
    """Messages at the start that never carry loss: the prompt of prompt/completion and alpaca records."""
    origin: Origin = field(compare=False, default=Origin("", 0))
    fields: Mapping[str, Any] = field(compare=False, repr=False, default_factory=dict)
    """The record as its file has it."""

    @cached_property
    def content_key(self) -> str:
        """Sha256 of the content alone: the same on every machine, whatever the file or its order."""
        messages = None if self.messages is None else [[m.as_dict(), m.train] for m in self.messages]
        content = [messages, self.prompt, self.completion, self.text, self.tools, self.num_context_messages]
        canonical = json.dumps(content, sort_keys=True, separators=(",", ":"), default=str)
        return hashlib.sha256(canonical.encode()).hexdigest()


def convert(records: Sequence[Record], format: str | None = None) -> tuple[str, list[Example]]:
    """Turn records into Examples of one format, named or recognised from all of them; returns its name too.

    Raises DataError for records that fit no format or not the named one, mixed formats, wrong roles or types.
    """
    name = recognise(records) if format is None else format
    if name not in DATA_FORMATS:
        raise DataError(f"format {name!r} does not exist.{nearest(name, DATA_FORMATS)}")
    examples: list[Example] = []
    problems: list[Problem] = []
    for record in records:
        try:
            if name not in formats_of(record.fields):
                needs = f"which needs {NEEDS[name]}; {_keys(record.fields)}"
                raise BadRecord(f"the record does not fit the format {name!r}, {needs}")
            example = _CONVERTERS[name](record.fields, record.origin)
            examples.append(replace(example, fields=record.fields))
        except BadRecord as error:
            problems.append((record.origin, str(error)))
    if problems:
        raise problems_error(problems)
    return name, examples


def recognise(records: Sequence[Record]) -> str:
    """Return the one format that every record fits (the first of DATA_FORMATS when several do)."""
    problems: list[Problem] = []
    common: tuple[str, ...] | None = None
    first: Record | None = None
    for record in records:
        fits = formats_of(record.fields)
        if not fits:
            problems.append((record.origin, _fits_nothing(record.fields)))
        elif common is None or first is None:
            common, first = fits, record
        else:
            shared = tuple(name for name in common if name in fits)
            if not shared:
                both = f"this one is {fits[0]!r}, those before are {common[0]!r} (from {first.origin} on)"
                problems.append((record.origin, f"all records must have one format: {both}"))
                break
            common = shared
    if problems:
        raise problems_error(problems)
    if common is None:
        raise DataError("a dataset must hold at least one record")
    return common[0]


def formats_of(fields: Mapping[str, Any]) -> tuple[str, ...]:
    """The formats whose keys a record has, in the order of DATA_FORMATS; values are not looked at."""
    has = {key for key, value in fields.items() if value is not None}
    fits = []
    turns = next((fields[key] for key in TURN_KEYS if key in has), None)
    if turns is not None:
        parsed = _from_json(turns)
        head = parsed[0] if isinstance(parsed, list) and parsed else None
        keys = head if isinstance(head, dict) else ()
        # Turns that show neither key may be either; the conversion says what is wrong with them.
        fits += [name for name, key, other in _TURN_STYLES if key in keys or other not in keys]
    fits += [name for name, columns in _TEXTS.items() if columns <= has]
    # Where a value is missing, its column tells: null is an empty answer as "" is, and an empty CSV cell.
    return tuple(fits) or tuple(name for name, columns in _TEXTS.items() if columns <= set(fields))


def plain_alpaca_prompt(
    instruction: str, given: str = "", system: str = "", history: Sequence[Sequence[str]] = ()
) -> str:
    """Return the prompt of an alpaca record where there is no chat template; the output follows it directly.

    The layout, our own: the system text, then per exchange "### Task", "### Given" (when there is an input)
    and "### Answer", each heading on a line of its own above its text, and a blank line between the parts.
    """
    parts = [system] if system else []
    for question, answer in history:
        parts += [f"### Task\n{question}", f"### Answer\n{answer}"]
    parts.append(f"### Task\n{instruction}")
    if given:
        parts.append(f"### Given\n{given}")
    return "\n\n".join([*parts, "### Answer\n"])


def _fits_nothing(fields: Mapping[str, Any]) -> str:
    if {"chosen", "rejected"} <= set(fields):
        return (
            f"the record is a pair of a chosen and a rejected answer ({_keys(fields)}), as DPO and reward"
            " models take them; a sweep trains on one answer: make the chosen one the completion, and take"
            " the other out"
        )
    known = "; ".join(f"{name}: {needs}" for name, needs in NEEDS.items())
    return f"the record fits no known format; {_keys(fields)}. Known formats: {known}"


def _keys(fields: Mapping[str, Any]) -> str:
    named = [key if value is not None else f"{key} (null)" for key, value in fields.items()]
    return f"its keys are {', '.join(map(str, named))}" if named else "it has no keys"


def _from_json(value: Any) -> Any:
    """Return lists as they are, and lists written as JSON text (CSV cells) parsed."""
    if isinstance(value, str) and value.lstrip().startswith("["):
        try:
            return parse_json(value)
        except json.JSONDecodeError:
            return value
    return value


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
    place = f"turn {number}"
    if not isinstance(item, dict):
        raise BadRecord(
            f"{place} must be an object with {role_key!r} and {content_key!r}, got {type(item).__name__}"
        )
    known = without_nulls(item)
    if role_key not in known:
        raise BadRecord(f"{place} has no {role_key!r}; {_keys(item)}")
    weight = known.pop("weight", 1)
    if weight not in (0, 1):
        raise BadRecord(f"{place}: weight must be 0 or 1, got {weight!r}")
    role = _role(known.pop(role_key))
    content = known.pop(content_key, None)
    if content is None and not (known.get("tool_calls") or known.get("function_call")):
        raise BadRecord(f"{place} has no {content_key!r}; {_keys(item)}")
    extra = decode_arguments({key: value for key, value in known.items() if value not in ([], {})})
    return Message(
        role=role,
        content="" if content is None else _content(content, f"the {content_key} of {place}"),
        train=bool(weight),
        extra=extra,
    )


def _conversation(
    value: Any, name: str, role_key: str = "role", content_key: str = "content"
) -> tuple[Message, ...]:
    turns = _from_json(value)
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
    # A text that happens to be a JSON list stays a text: unlike a cell of `messages` it may well be meant so.
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
    history = _from_json(fields.get("history")) or []
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
