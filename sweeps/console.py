"""Printing text as it is."""

from __future__ import annotations

from rich.console import Console
from rich.text import Text


def say(console: Console, text: str | Text, style: str | None = None) -> None:
    """Print a line without markup, highlighting or wrapping: it may hold paths or foreign messages."""
    console.print(text, style=style, markup=False, highlight=False, soft_wrap=True)
