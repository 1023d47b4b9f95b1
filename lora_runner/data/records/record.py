"""A raw record with its file and line, and errors that name them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from lora_runner.errors import DataError

MAX_REPORTED = 5
"""Different problems listed in one error; the rest are counted."""


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a record is: `line` counts from 1, in `unit` ("line", "item" of a JSON list, "row")."""

    path: str
    line: int
    unit: str = "line"

    def __str__(self) -> str:
        return f"{self.path}:{self.line}"

    def explain(self, message: str) -> str:
        """Return the message, prefixed with unit and number unless that is a line of text."""
        return message if self.unit == "line" else f"{self.unit} {self.line}: {message}"


@dataclass(frozen=True, slots=True)
class Record:
    """One record as it is in the file."""

    fields: dict[str, Any]
    origin: Origin


class BadRecord(Exception):
    """One record breaks a rule; callers collect several and report them together."""


Problem = tuple[Origin, str]


def problems_error(problems: Sequence[Problem]) -> DataError:
    """Return one DataError for several bad records: a line for each problem, with its count."""
    by_text: dict[str, list[Origin]] = {}
    for origin, text in problems:
        by_text.setdefault(text, []).append(origin)
    lines: list[str] = []
    for text, (origin, *others) in [*by_text.items()][:MAX_REPORTED]:
        where = f"{origin}: " if lines else ""
        more = f" ({len(others) + 1:,} such records, the next at {others[0]})" if others else ""
        lines.append(f"{where}{origin.explain(text)}{more}")
    if left := sum(map(len, [*by_text.values()][MAX_REPORTED:])):
        lines.append(f"... and {left:,} more bad record{'' if left == 1 else 's'}")
    first = problems[0][0]
    return DataError("\n".join(lines), path=first.path, line=first.line)


def parse_json(text: str) -> Any:
    """`json.loads`, but every failure is a JSONDecodeError."""
    try:
        return json.loads(text)
    except RecursionError:
        raise json.JSONDecodeError("nested too deeply", text, 0) from None
    except ValueError as error:
        if isinstance(error, json.JSONDecodeError):
            raise
        # Python refuses integers of thousands of digits (sys.set_int_max_str_digits).
        raise json.JSONDecodeError("a number has too many digits", text, 0) from None
