"""What a chart shows, as plain data; `svg.py` and `plotly_figure.py` draw it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Side = Literal["x", "y"]
Weight = Literal["faint", "light", "normal", "strong"]


@dataclass(frozen=True, kw_only=True)
class Tick:
    at: float
    text: str


@dataclass(frozen=True, kw_only=True)
class Axis:
    """One axis, with the ends of what is shown."""

    title: str
    """With the unit; "" for none."""
    low: float
    high: float
    is_log: bool = False
    is_reversed: bool = False
    """Whether `low` is at the top, as in a list."""
    ticks: tuple[Tick, ...] | None = None
    """None: round numbers, as many as fit."""
    has_grid: bool = True


@dataclass(frozen=True, kw_only=True)
class Mark:
    """A point, usually a trial."""

    x: float
    y: float
    text: str
    """What a pointer on it shows, in lines."""
    label: str = ""
    """Written beside it."""
    short_label: str = ""
    """Instead of `label` where that would cover other marks."""
    low: float | None = None
    high: float | None = None
    """Ends of the interval of `y`, drawn as an error bar."""
    shade: float | None = None
    """From 0 (strong) to 1 (pale) on the color scale, instead of the color of its series."""


@dataclass(frozen=True, kw_only=True)
class Line:
    """A line through points, usually a trial's."""

    points: tuple[tuple[float, float], ...]
    text: str
    label: str = ""
    """Written right of the frame, at its end."""


@dataclass(frozen=True, kw_only=True)
class Bar:
    """A horizontal bar on the lane at `y`."""

    low: float
    high: float
    y: float
    text: str
    label: str = ""
    """Written inside where it fits; behind the end with `is_label_outside`."""
    is_label_outside: bool = False


@dataclass(frozen=True, kw_only=True)
class Series:
    """Marks, lines or bars of one kind: one color, one symbol, one entry of the legend."""

    style: str
    """A name in `styles.py`."""
    name: str = ""
    """In the legend; "" for no entry."""
    marks: tuple[Mark, ...] = ()
    lines: tuple[Line, ...] = ()
    bars: tuple[Bar, ...] = ()
    weight: Weight = "normal"


@dataclass(frozen=True, kw_only=True)
class Band:
    """A shaded range of x, or with `y_low` and `y_high` a box."""

    low: float
    high: float
    style: str
    text: str
    y_low: float | None = None
    y_high: float | None = None


@dataclass(frozen=True, kw_only=True)
class Guide:
    """A straight line through the whole frame, at one value of x or y."""

    side: Side
    at: float
    style: str
    label: str = ""
    text: str = ""


@dataclass(frozen=True, kw_only=True)
class StripRow:
    """A line of the strip below the frame, on the same x axis: a value (`low` equal to `high`) or a range."""

    low: float
    high: float
    label: str
    text: str
    style: str = "table"


@dataclass(frozen=True, kw_only=True)
class Note:
    """Small text below a point, such as the end of a lane."""

    x: float
    y: float
    text: str


@dataclass(frozen=True, kw_only=True)
class Chart:
    """One chart. Series are drawn in order, the last on top."""

    id: str
    """Unique on a page."""
    title: str
    label: str
    """What is drawn, in a sentence, for readers who cannot see it."""
    caption: str
    """What to look for, in a sentence or two."""
    x: Axis
    y: Axis
    series: tuple[Series, ...] = ()
    bands: tuple[Band, ...] = ()
    guides: tuple[Guide, ...] = ()
    edge: tuple[Series, ...] = ()
    """Marks along the top edge, whose `y` is not on the axis: trials that ended before their full budget."""
    edge_title: str = ""
    strip: tuple[StripRow, ...] = ()
    strip_title: str = ""
    notes: tuple[Note, ...] = ()
    shade_key: str = ""
    """What the color scale shows, from its strong to its pale end."""
    height: int = 300
    """Of the frame in a wide picture, pixels."""
    is_spread: bool = True
    """Whether marks that would hide each other are moved apart."""
