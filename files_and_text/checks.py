"""Collects every problem of one hand-written mapping before any of it is refused."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from typing import Any

from files_and_text.nearest_name import nearest
from files_and_text.problems import InputError, Problem
from files_and_text.yaml_lines import KeyPath, Lines, line_of


class Checks:
    """Reads values of one source and remembers what is wrong with them, each with its line."""

    def __init__(self, path: str | None = None, lines: Lines | None = None) -> None:
        self.problems: list[Problem] = []
        self._path = path
        self._lines = lines

    def add(self, message: str, at: KeyPath) -> None:
        """Remember a problem of the value at this key path."""
        self.problems.append(Problem(message, self._path, line_of(self._lines, at), at))

    def raise_if_any(self) -> None:
        """Raise InputError with all problems so far, if there are any."""
        if self.problems:
            raise InputError(self.problems)

    def mapping(self, value: object, at: KeyPath, known: Collection[str] | None = None) -> dict[str, Any]:
        """The mapping without its unknown keys; what is not a mapping counts as an empty one."""
        if not isinstance(value, Mapping):
            self.add(f"{_name(at)} must be a mapping of keys to values; got {_shown(value)}.", at)
            return {}
        result = {}
        for key, item in value.items():
            if known is not None and key not in known:
                self.add(f"{_name(at)} has no key {key!r}.{nearest(key, known)}", (*at, key))
            else:
                result[str(key)] = item
        return result

    def number(self, value: object, at: KeyPath) -> float | None:
        """A finite number, also when written as text ("1e-4"); None after a problem."""
        number: float | None = None
        if isinstance(value, int | float | str) and not isinstance(value, bool):
            try:
                number = float(value)
            except (ValueError, OverflowError):
                number = None
        if number is None or not math.isfinite(number):
            self.add(f"{_name(at)} must be a finite number; got {_shown(value)}.", at)
            return None
        return number

    def text(self, value: object, at: KeyPath) -> str:
        """A text; "" after a problem."""
        if isinstance(value, str):
            return value
        self.add(f"{_name(at)} must be text; got {_shown(value)}.", at)
        return ""

    def boolean(self, value: object, at: KeyPath) -> bool | None:
        """true or false; None after a problem."""
        if isinstance(value, bool):
            return value
        self.add(f"{_name(at)} must be true or false; got {_shown(value)}.", at)
        return None

    def one_of(self, value: object, known: Collection[str], at: KeyPath) -> str | None:
        """One of the known names; None after a problem."""
        if isinstance(value, str) and value in known:
            return value
        self.add(f"{_name(at)}: {_shown(value)} is not known.{nearest(value, known)}", at)
        return None


def _name(at: KeyPath) -> str:
    return ".".join(str(part) for part in at) or "the input"


def _shown(value: object) -> str:
    text = "nothing" if value is None else repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
