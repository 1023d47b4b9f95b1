"""The blocks that a page consists of: plain data that the template renders."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from markupsafe import Markup

Tone = Literal["plain", "good", "bad", "unsure"]


@dataclass(frozen=True, kw_only=True)
class Badge:
    """A colored word in a cell; a sign before it carries the same meaning."""

    text: str
    tone: Tone = "plain"


Cell = str | Badge


@dataclass(frozen=True, kw_only=True)
class Headline:
    """The one sentence that everybody reads."""

    kind: ClassVar[str] = "headline"
    text: str


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


Role = Literal["best", "default", "base", "reference"]
"""Whose number or text it is: the same color as in the charts."""


@dataclass(frozen=True, kw_only=True)
class Tile:
    """One number in large type."""

    mark: Role
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
class Command:
    """A line to be copied into a terminal, and what it is for."""

    text: str
    why: str


@dataclass(frozen=True, kw_only=True)
class Commands:
    kind: ClassVar[str] = "commands"
    commands: Sequence[Command]


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A chart as SVG, whose text is escaped, and what to look for in it."""

    kind: ClassVar[str] = "picture"
    svg: Markup
    caption: str


@dataclass(frozen=True, kw_only=True)
class SampleTexts:
    """A prompt, and texts that continue it beside each other."""

    kind: ClassVar[str] = "sample"
    prompt: str
    texts: Sequence[tuple[Role, str, str]]
    """(mark, who wrote it, text)."""


@dataclass(frozen=True, kw_only=True)
class Fold:
    """Blocks of which only the summary is shown until the reader opens it."""

    kind: ClassVar[str] = "fold"
    summary: str
    blocks: Sequence[Block]


Block = Headline | Paragraph | Bullets | Tiles | Table | Code | Commands | Picture | SampleTexts | Fold


@dataclass(frozen=True, kw_only=True)
class Section:
    id: str
    title: str
    blocks: Sequence[Block]
