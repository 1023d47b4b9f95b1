"""The errors that a person can act on, and the one for input that a person wrote and must correct.

ExpectedError           base of every error that is raised on purpose, in every package
  InputError            also a ValueError: every problem of one input, each with its file and line
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Problem:
    """One thing to correct, and where it is."""

    message: str
    """The rule, then the value that breaks it."""
    path: str | None = None
    """The file as the user named it; None when there is none."""
    line: int | None = None
    """Counted from 1; None when unknown."""
    key: tuple[str | int, ...] = field(default=(), compare=False)
    """The key path in the input, from which a caller that knows the file finds the line."""

    def __str__(self) -> str:
        line = None if self.line is None else str(self.line)
        if self.path is None:
            return self.message if line is None else f"line {line}: {self.message}"
        return ":".join(part for part in (self.path, line) if part is not None) + f": {self.message}"


class ExpectedError(Exception):
    """A condition that a person can act on, never a bug; its message is all that the command line prints."""


class InputError(ExpectedError, ValueError):
    """All problems of one input, one per line when printed."""

    problems: list[Problem]

    def __init__(self, problems: Iterable[Problem | str]) -> None:
        self.problems = [Problem(problem) if isinstance(problem, str) else problem for problem in problems]
        if not self.problems:
            raise TypeError("InputError needs at least one problem.")
        # As the exception's argument, the list survives pickling between processes.
        super().__init__(self.problems)

    def __str__(self) -> str:
        return "\n".join(str(problem) for problem in self.problems)
