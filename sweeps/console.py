"""Printing text as it is."""

from __future__ import annotations

import shutil
import textwrap
from pathlib import Path

from rich.console import Console, RenderableType
from rich.text import Text


def say(console: Console, text: str | Text, style: str | None = None) -> None:
    """Print a line without markup, highlighting or wrapping: it may hold paths or foreign messages."""
    console.print(text, style=style, markup=False, highlight=False, soft_wrap=True)


def print_trimmed(console: Console, *parts: RenderableType) -> None:
    """Print tables; into a file or pipe without the spaces that fill their lines."""
    if console.is_terminal:
        console.print(*parts)
        return
    with console.capture() as printed:
        console.print(*parts)
    for line in printed.get().splitlines():
        say(console, line.rstrip())


def console_of(progress: bool) -> Console:
    """Where a run shows what it does; nowhere without `progress`."""
    return Console() if progress else Console(quiet=True, force_terminal=False, force_jupyter=False)


def wrapped(text: str) -> str:
    """Lines that fit the terminal, broken between words; a long word, such as a path, stays whole."""
    width = shutil.get_terminal_size().columns
    lines = []
    for line in text.splitlines():
        indent = line[: len(line) - len(line.lstrip())]
        lines += textwrap.wrap(
            line, width, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
        ) or [""]
    return "\n".join(lines)


def shown_path(path: Path) -> Path:
    """A path as a person types it: from the working directory where it lies below that."""
    here = Path.cwd()
    return path.relative_to(here) if path.is_relative_to(here) and path != here else path
