"""Values of tool calls and tool schemas as they were written, whatever file format they came through."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from lora_runner.data.records.record import parse_json


def without_nulls(value: Any) -> Any:
    """Return the value without the keys of dicts that hold null, at every depth; items of lists stay.

    Arrow (parquet, `save_to_disk`, datasets) gives every struct every key that any record has and fills it
    with null. Which nulls somebody wrote cannot be told from those, so none counts, in JSON lines neither: a
    set has the same content in every file format. A null that is meant stands in `arguments` as JSON text.
    """
    if isinstance(value, Mapping):
        return {key: without_nulls(item) for key, item in value.items() if item is not None}
    if isinstance(value, list | tuple):
        return [without_nulls(item) for item in value]
    return value


def decode_arguments(extra: Mapping[str, Any]) -> dict[str, Any]:
    """Return a turn's fields with the arguments of its calls as dicts, where they are JSON text of one.

    OpenAI's API writes `arguments` as text; chat templates expect a dict, and print a text in quotes.
    Text that is no JSON object stays.
    """
    decoded = dict(extra)
    if isinstance(calls := decoded.get("tool_calls"), list):
        decoded["tool_calls"] = [_decode_call(call) for call in calls]
    if "function_call" in decoded:
        decoded["function_call"] = _decode_call(decoded["function_call"])
    return decoded


def encode_arguments(extra: Mapping[str, Any]) -> dict[str, Any]:
    """The opposite of `decode_arguments`, for templates that can only print a text."""
    calls = [
        {**call, "function": {**call["function"], "arguments": _as_text(call["function"].get("arguments"))}}
        if isinstance(call, Mapping) and isinstance(call.get("function"), Mapping)
        else call
        for call in extra.get("tool_calls", ())
    ]
    return {**extra, "tool_calls": calls} if calls else dict(extra)


def _as_text(arguments: Any) -> str:
    return arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)


def _decode_call(call: Any) -> Any:
    if not isinstance(call, Mapping):
        return call
    decoded = dict(call)
    if isinstance(function := decoded.get("function"), Mapping):
        decoded["function"] = _decode_call(function)
    if isinstance(text := decoded.get("arguments"), str):
        try:
            arguments = parse_json(text)
        except json.JSONDecodeError:
            return decoded
        if isinstance(arguments, dict):
            decoded["arguments"] = arguments
    return decoded
