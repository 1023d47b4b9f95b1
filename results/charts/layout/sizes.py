"""The two widths in which every chart is drawn: a page shows the one that fits."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Size:
    """Pixels of the picture and its text at its own width."""

    name: str
    width: float
    font: float
    small: float
    height_share: float = 1.0
    """Of the chart's own height."""
    mark_share: float = 1.0
    """Of the marks' own sizes."""


WIDE = Size(name="wide", width=860, font=13, small=12)
NARROW = Size(name="narrow", width=372, font=12.5, small=12, height_share=0.9, mark_share=0.9)
