"""Checks the values of a hand-written mapping and reports all problems at once."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from files_and_text.nearest_name import nearest
from files_and_text.problems import InputError, Problem
from files_and_text.yaml_lines import KeyPath, Lines, dotted, line_of


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What a number must keep to, beside being finite."""

    whole: bool = False
    above: float | None = None
    at_least: float | None = None
    at_most: float | None = None
    below: float | None = None

    def broken_by(self, value: float) -> str | None:
        """The rule that a value breaks, such as "must be above 0"; None when it breaks none."""
        if self.whole and value != int(value):
            return "must be a whole number"
        if self.above is not None and value <= self.above:
            return f"must be above {self.above:g}"
        if self.at_least is not None and value < self.at_least:
            return f"must be at least {self.at_least:g}"
        if self.at_most is not None and value > self.at_most:
            return f"must be at most {self.at_most:g}"
        if self.below is not None and value >= self.below:
            return f"must be below {self.below:g}"
        return None


class ValueChecker:
    """Returns the right values of one input and keeps a problem, with its line, for each wrong one."""

    def __init__(self, path: str | None = None, lines: Lines | None = None) -> None:
        self.problems: list[Problem] = []
        self._path = path
        self._lines = lines

    def add(self, message: str, at: KeyPath) -> None:
        """Keep a problem of the value at this key path."""
        self.problems.append(Problem(message, self._path, line_of(self._lines, at), at))

    def raise_if_any(self) -> None:
        """Raise InputError with all problems so far, if there are any."""
        if self.problems:
            raise InputError(self.problems)

    def mapping(self, value: object, at: KeyPath, known: Collection[str] | None = None) -> dict[str, Any]:
        """The mapping without its unknown keys; {} after a problem."""
        if not isinstance(value, Mapping):
            self._refuse("must be a mapping of keys to values", value, at)
            return {}
        result = {}
        for key, item in value.items():
            if known is not None and key not in known:
                self.add(f"{_name(at)} has no key {key!r}.{nearest(key, known)}", (*at, key))
            else:
                result[str(key)] = item
        return result

    def items(self, value: object, at: KeyPath) -> list[Any]:
        """A list; [] after a problem."""
        if isinstance(value, list | tuple):
            return list(value)
        self._refuse("must be a list", value, at)
        return []

    def number(self, value: object, at: KeyPath, limits: Limits | None = None) -> float | None:
        """A finite number within the limits, also when written as text ("1e-4"); None after a problem."""
        number = math.nan
        if isinstance(value, int | float | str) and not isinstance(value, bool):
            try:
                number = float(value)
            except (ValueError, OverflowError):
                number = math.nan
        if not math.isfinite(number):
            self._refuse("must be a finite number", value, at)
            return None
        rule = limits.broken_by(number) if limits else None
        if rule is not None:
            self.add(f"{_name(at)} {rule}; got {number:g}.", at)
            return None
        return number

    def text(self, value: object, at: KeyPath) -> str:
        """A text; "" after a problem."""
        if isinstance(value, str):
            return value
        self._refuse("must be text", value, at)
        return ""

    def boolean(self, value: object, at: KeyPath) -> bool | None:
        """true or false; None after a problem."""
        if isinstance(value, bool):
            return value
        self._refuse("must be true or false", value, at)
        return None

    def one_of(self, value: object, known: Collection[str], at: KeyPath) -> str | None:
        """One of the known names; None after a problem."""
        if isinstance(value, str) and value in known:
            return value
        self.add(f"{_name(at)}: {_shown(value)} is not known.{nearest(value, known)}", at)
        return None

    def _refuse(self, rule: str, value: object, at: KeyPath) -> None:
        self.add(f"{_name(at)} {rule}; got {_shown(value)}.", at)


def _name(at: KeyPath) -> str:
    return dotted(at) or "the input"


def _shown(value: object) -> str:
    text = "nothing" if value is None else repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
