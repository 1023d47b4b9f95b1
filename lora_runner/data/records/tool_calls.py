"""Tool calls and tool schemas, the same whatever file format they were read from."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from lora_runner.data.records.record import parse_json


def without_nulls(value: Any) -> Any:
    """Return the value without dict keys whose value is null, at every depth; list items stay.

    Arrow (parquet, `save_to_disk`, datasets) gives every struct all keys of all records and fills them with
    null. Those cannot be told from nulls in the data, so all are dropped, in JSON Lines too: a dataset has
    the same content in every file format. An intended null can be written inside `arguments` as JSON text.
    """
    if isinstance(value, Mapping):
        return {key: without_nulls(item) for key, item in value.items() if item is not None}
    if isinstance(value, list | tuple):
        return [without_nulls(item) for item in value]
    return value


def decode_arguments(extra: Mapping[str, Any]) -> dict[str, Any]:
    """Return a turn's fields with the `arguments` of its calls parsed, if they are a JSON object as text.

    OpenAI's API writes `arguments` as text; chat templates expect a dict and would print text in quotes.
    """
    decoded = dict(extra)
    if isinstance(calls := decoded.get("tool_calls"), list):
        decoded["tool_calls"] = [_decode_call(call) for call in calls]
    if "function_call" in decoded:
        decoded["function_call"] = _decode_call(decoded["function_call"])
    return decoded


def encode_arguments(extra: Mapping[str, Any]) -> dict[str, Any]:
    """The inverse of `decode_arguments`, for templates that can only print text."""
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
