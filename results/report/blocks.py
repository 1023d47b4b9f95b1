"""What a page is made of: sections of a few kinds of block, each plain data that the template draws."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

Tone = Literal["plain", "good", "bad", "unsure"]


@dataclass(frozen=True, kw_only=True)
class Badge:
    """A word in a cell with a sign of its own, so that it does not speak by colour alone."""

    text: str
    tone: Tone = "plain"


Cell = str | Badge


@dataclass(frozen=True, kw_only=True)
class Paragraph:
    kind: ClassVar[str] = "paragraph"
    text: str
    tone: Tone = "plain"
    """unsure: a warning; the others as they say."""


@dataclass(frozen=True, kw_only=True)
class Bullets:
    kind: ClassVar[str] = "bullets"
    items: Sequence[str]


@dataclass(frozen=True, kw_only=True)
class Tile:
    """One figure to be seen from afar."""

    label: str
    value: str
    detail: str = ""


@dataclass(frozen=True, kw_only=True)
class Tiles:
    kind: ClassVar[str] = "tiles"
    tiles: Sequence[Tile]


@dataclass(frozen=True, kw_only=True)
class Table:
    """Rows under a header; a narrow screen shows each row of a `stacked` one as a card."""

    kind: ClassVar[str] = "table"
    caption: str
    header: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    folded: bool = False
    """Whether only the caption shows until it is opened."""
    stacked: bool = False


@dataclass(frozen=True, kw_only=True)
class Code:
    kind: ClassVar[str] = "code"
    label: str
    text: str


@dataclass(frozen=True, kw_only=True)
class Plot:
    """A plotly figure, and the same numbers as a table for who cannot see it."""

    kind: ClassVar[str] = "plot"
    id: str
    label: str
    """What is drawn, in a few words; read out in place of the drawing."""
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
