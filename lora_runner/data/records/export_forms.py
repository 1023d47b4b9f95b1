"""What in a dataset other trainers read differently from this one, so that exports can say so."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

from lora_runner.data.records.record import Record, parse_json

FORMS = (
    "json_text",  # turns, tools or a history written as JSON text
    "parts",  # content as a list of parts
    "tools",  # JSON schemas of tools beside the turns
    "tool_turns",  # tool calls or their results
    "reasoning",  # reasoning in a field of its own
    "weight_0",  # assistant turns that are context only
    "assistant_first",  # conversations that begin with the assistant
    "messages",  # prompts or completions as lists of turns
    "history",  # exchanges before an alpaca instruction
    "input",  # an input below an alpaca instruction
    "empty_fields",  # fields of turns that hold an empty list or object
    "turns_key",  # turns under a key other than the format's usual one
    "roles",  # role names other than human, gpt and those of chat templates
    "marked",  # the template marks the assistant turns with {% generation %}
    "per_turn",  # one sequence per assistant turn
    "dated",  # the template prints the date
    "other_stop",  # turns end with a token other than eos_token
    "copies_in_eval",  # records left out because they are in the evaluation set
)
"""Names of forms, as stored in the study."""

_USUAL_KEY = {"messages": "messages", "sharegpt": "conversations"}
_TOOL_ROLES = {"tool", "function", "ipython", "function_call", "observation", "function_response"}
_OTHER_NAMES = {"chatgpt", "model", "bot", "function_call", "observation", "function_response", "developer"}
_REASONING = {"reasoning_content", "reasoning", "thinking"}


def record_forms(records: Iterable[Record], format: str) -> set[str]:
    """Return the forms found in the records themselves."""
    return {form for record in records for form in _forms_of(record.fields, format)}


def rendering_forms(template: str | None, ways: Collection[str], stops: Iterable[int], eos: Any) -> set[str]:
    """Return the forms that come from the chat template; `stops` are the ids of the tokens that end turns."""
    if template is None:
        return set()
    found = {name for name, way in (("marked", "marked"), ("per_turn", "per turn")) if way in ways}
    return (
        found
        | ({"dated"} if "strftime_now" in template else set())
        | ({"other_stop"} if set(stops) - {eos} else set())
    )


def _forms_of(fields: Mapping[str, Any], format: str) -> Iterator[str]:
    if format in _USUAL_KEY:
        key = next((key for key in ("messages", "conversations", "conversation") if fields.get(key)), "")
        yield from _of_turns(fields.get(key), "from" if format == "sharegpt" else "role")
        if key != _USUAL_KEY[format]:
            yield "turns_key"
    elif format == "prompt_completion":
        for value in (fields.get("prompt"), fields.get("completion")):
            if isinstance(value, list):
                yield "messages"
                yield from set(_of_turns(value, "role")) - {"assistant_first"}
    elif format == "alpaca":
        yield from (name for name in ("history", "input") if fields.get(name))
        if isinstance(fields.get("history"), str):
            yield "json_text"
    if tools := fields.get("tools"):
        yield "tools"
        if isinstance(tools, str):
            yield "json_text"


def _of_turns(value: Any, role_key: str) -> Iterator[str]:
    if isinstance(value, str):
        yield "json_text"
        try:
            value = parse_json(value)
        except json.JSONDecodeError:
            return
    turns: Sequence[Any] = value if isinstance(value, list) else ()
    roles = [str(turn.get(role_key)) for turn in turns if isinstance(turn, Mapping)]
    if roles and roles[0] in ("assistant", "gpt"):
        yield "assistant_first"
    if _OTHER_NAMES & set(roles):
        yield "roles"
    if _TOOL_ROLES & set(roles):
        yield "tool_turns"
    for turn in turns:
        if isinstance(turn, Mapping):
            yield from _of_turn(turn)


def _of_turn(turn: Mapping[str, Any]) -> Iterator[str]:
    if any(isinstance(turn.get(name), list) for name in ("content", "value")):
        yield "parts"
    if turn.get("weight") == 0:
        yield "weight_0"
    if turn.get("tool_calls") or turn.get("function_call"):
        yield "tool_turns"
    if any(turn.get(name) for name in _REASONING):
        yield "reasoning"
    if any(value in ([], {}) for value in turn.values()):
        yield "empty_fields"
