"""The blocks that a page consists of: plain data that the template renders."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

Tone = Literal["plain", "good", "bad", "unsure"]


@dataclass(frozen=True, kw_only=True)
class Badge:
    """A colored word in a cell; a sign before it carries the same meaning."""

    text: str
    tone: Tone = "plain"


Cell = str | Badge


@dataclass(frozen=True, kw_only=True)
class Paragraph:
    kind: ClassVar[str] = "paragraph"
    text: str
    tone: Tone = "plain"
    """`unsure` is a warning."""


@dataclass(frozen=True, kw_only=True)
class Bullets:
    kind: ClassVar[str] = "bullets"
    items: Sequence[str]


@dataclass(frozen=True, kw_only=True)
class Tile:
    """One number in large type."""

    label: str
    value: str
    detail: str = ""


@dataclass(frozen=True, kw_only=True)
class Tiles:
    kind: ClassVar[str] = "tiles"
    tiles: Sequence[Tile]


@dataclass(frozen=True, kw_only=True)
class Table:
    """Rows under a header; on a narrow screen each row of a `stacked` table is a card."""

    kind: ClassVar[str] = "table"
    caption: str
    header: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    folded: bool = False
    """Whether only the caption is shown until the reader opens it."""
    stacked: bool = False


@dataclass(frozen=True, kw_only=True)
class Code:
    kind: ClassVar[str] = "code"
    label: str
    text: str


@dataclass(frozen=True, kw_only=True)
class Plot:
    """A plotly figure, and its numbers as a table for readers who cannot see it."""

    kind: ClassVar[str] = "plot"
    id: str
    label: str
    """What is drawn, in a few words, for screen readers."""
    caption: str
    """What to look for, in a sentence or two."""
    spec: Mapping[str, Any]
    """`data` and `layout`, builtins only, without NaN."""
    table: Table
    height: int = 420
    """Pixels."""


Block = Paragraph | Bullets | Tiles | Table | Code | Plot


@dataclass(frozen=True, kw_only=True)
class Section:
    id: str
    title: str
    blocks: Sequence[Block]


def text_section(id: str, title: str, text: str) -> Section:
    """A section of one paragraph: why there is nothing to show."""
    return Section(id=id, title=title, blocks=[Paragraph(text=text)])
