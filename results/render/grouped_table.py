"""A table for the terminal whose lines stand in groups, each under its own title."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

from rich.text import Text

_INDENT, _GAP = 2, 2
_NARROWEST = 8
"""A column is wrapped down to this width."""
_FIRST = 14
"""The first column is wrapped down to this width before any other."""


@dataclass(frozen=True, kw_only=True)
class Group:
    """Lines that share a title; a cell is (text, style)."""

    title: str
    note: str = ""
    """Behind the title, dim."""
    lines: Sequence[Sequence[tuple[str, str]]] = ()


def grouped_table(header: Sequence[str], groups: Sequence[Group], *, width: int) -> list[Text]:
    """The lines, none wider than `width` as far as words allow. A column whose every cell is empty is left
    out; cells are wrapped at spaces, the first column first, then the widest."""
    kept = [
        index
        for index in range(len(header))
        if any(line[index][0] for group in groups for line in group.lines)
    ]
    cells = [[line[index][0] for index in kept] for group in groups for line in group.lines]
    widths = _widths([[header[index] for index in kept], *cells], width)
    shown = [_line([(header[index], "dim") for index in kept], widths)] if kept else []
    found = [part for line in shown for part in line]
    for group in groups:
        found += _title(group, width)
        for line in group.lines:
            found += _line([line[index] for index in kept], widths)
    return found


def _title(group: Group, width: int) -> list[Text]:
    text = f"{group.title}  {group.note}" if group.note else group.title
    lines = textwrap.wrap(text, width, subsequent_indent=" " * _INDENT, break_on_hyphens=False) or [""]
    found = [Text(line, style="dim" if index else "") for index, line in enumerate(lines)]
    found[0].stylize("bold", 0, len(group.title))
    found[0].stylize("dim", len(group.title))
    return found


def _widths(lines: Sequence[Sequence[str]], width: int) -> list[int]:
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    longest_words = [
        max(max(map(len, cell.split()), default=0) for cell in column) for column in zip(*lines, strict=True)
    ]
    while _INDENT + sum(widths) + _GAP * (len(widths) - 1) > width:
        least = [max(_NARROWEST, word) for word in longest_words]
        room = [size - smallest for size, smallest in zip(widths, least, strict=True)]
        if max(room, default=0) <= 0:
            break
        widths[0 if room[0] > 0 and widths[0] > _FIRST else room.index(max(room))] -= 1
    return widths


def _line(cells: Sequence[tuple[str, str]], widths: Sequence[int]) -> list[Text]:
    columns = [
        textwrap.wrap(text, size, break_long_words=False, break_on_hyphens=False) or [""]
        for (text, _), size in zip(cells, widths, strict=True)
    ]
    found = []
    for number in range(max(map(len, columns), default=0)):
        line = Text(" " * _INDENT)
        for column, (_, style), size in zip(columns, cells, widths, strict=True):
            part = column[number] if number < len(column) else ""
            line.append(part, style=style or None)
            line.append(" " * (size - len(part) + _GAP))
        line.rstrip()
        found.append(line)
    return found
