"""The formats that datasets come in, and which of them a record has."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from lora_runner.data.records.record import Origin, Problem, Record, parse_json, problems_error
from lora_runner.errors import DataError

NEEDS = {
    "messages": 'messages: [{"role", "content"}, ...]',
    "sharegpt": 'conversations: [{"from", "value"}, ...]',
    "prompt_completion": "prompt and completion (texts or lists of messages)",
    "alpaca": "instruction and output (also input, system, history)",
    "text": "text",
}
"""What a record of each format needs, for error messages."""

RENAME = "messages (a chat), prompt and completion, instruction and output, or text"
"""What the columns of a record that fits nothing may be called."""

TURN_KEYS = ("messages", "conversations", "conversation")
_TEXT_COLUMNS = {
    "prompt_completion": {"prompt", "completion"},
    "alpaca": {"instruction", "output"},
    "text": {"text"},
}
"""Columns whose values may be null."""
_TURN_STYLES = (
    ("messages", "role", "from"),
    ("sharegpt", "from", "role"),
)  # (format, its key, the other's key)


def recognize(records: Sequence[Record]) -> str:
    """Return the one format that every record fits, the first of DATA_FORMATS if several do."""
    fit_nothing = [record for record in records if not formats_of(record.fields)]
    if fit_nothing:
        raise _fits_nothing(fit_nothing, len(records))
    problems: list[Problem] = []
    common: list[str] = []
    first: Origin | None = None
    for record in records:
        fits = formats_of(record.fields)
        if not common:
            common, first = [*fits], record.origin
        elif shared := [name for name in common if name in fits]:
            common = shared
        else:
            both = f"this one is {fits[0]!r}, those before are {common[0]!r} (from {first} on)"
            problems.append((record.origin, f"all records must have one format: {both}"))
            break
    if problems:
        raise problems_error(problems)
    if not common:
        raise DataError("a dataset must hold at least one record")
    return common[0]


def formats_of(fields: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the formats whose keys a record has, in the order of DATA_FORMATS; values are not checked."""
    has = {key for key, value in fields.items() if value is not None}
    fits = []
    turns = next((fields[key] for key in TURN_KEYS if key in has), None)
    if turns is not None:
        parsed = parse_json_list(turns)
        head = parsed[0] if isinstance(parsed, list) and parsed else None
        keys = head if isinstance(head, dict) else ()
        # Turns with neither key could be either; the conversion reports what is wrong with them.
        fits += [name for name, key, other in _TURN_STYLES if key in keys or other not in keys]
    fits += [name for name, columns in _TEXT_COLUMNS.items() if columns <= has]
    # The columns decide when values are missing: null is an empty answer, like "" or an empty CSV cell.
    return tuple(fits) or tuple(name for name, columns in _TEXT_COLUMNS.items() if columns <= set(fields))


def _fits_nothing(unfit: Sequence[Record], num_records: int) -> DataError:
    """One line, about the first of the records and how many they are."""
    fields, origin = unfit[0].fields, unfit[0].origin
    count = f" ({len(unfit):,} of {num_records:,} records)"
    if {"chosen", "rejected"} <= set(fields):
        text = (
            f"the record is a pair of a chosen and a rejected answer{count}, as DPO and reward models take"
            f" them; {key_list(fields)}. A sweep trains on one answer: make the chosen one the completion,"
            " and take the other out"
        )
    else:
        remedy = f"Rename its columns to {RENAME}"
        remedy += ", or take such records out" if len(unfit) < num_records else ""
        text = f"the record fits no known format{count}; {key_list(fields)}. {remedy}"
    return DataError(origin.explain(text), path=origin.path, line=origin.line)


def key_list(fields: Mapping[str, Any]) -> str:
    """Describe a record's keys for an error message."""
    named = [key if value is not None else f"{key} (null)" for key, value in fields.items()]
    return f"its keys are {', '.join(map(str, named))}" if named else "it has no keys"


def parse_json_list(value: Any) -> Any:
    """Parse a list written as JSON text (a CSV cell); return anything else unchanged."""
    if isinstance(value, str) and value.lstrip().startswith("["):
        try:
            return parse_json(value)
        except json.JSONDecodeError:
            return value
    return value
