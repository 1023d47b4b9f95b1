"""Rectangles, and how wide text is in a font that is not known."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Anchor = Literal["start", "middle", "end"]
_NARROW, _WIDE = frozenset("ijlt.,:;|!'()[]f -"), frozenset("mwMW%@")


@dataclass(frozen=True, kw_only=True)
class Box:
    """Pixels from the top left of the picture."""

    left: float
    top: float
    right: float
    bottom: float

    @property
    def width(self) -> float:
        return self.right - self.left

    @property
    def height(self) -> float:
        return self.bottom - self.top

    def overlaps(self, other: Box) -> bool:
        return (
            self.left < other.right
            and other.left < self.right
            and self.top < other.bottom
            and other.top < self.bottom
        )

    def is_inside(self, other: Box) -> bool:
        return (
            self.left >= other.left
            and self.right <= other.right
            and self.top >= other.top
            and self.bottom <= other.bottom
        )

    def shared_area(self, other: Box) -> float:
        width = min(self.right, other.right) - max(self.left, other.left)
        height = min(self.bottom, other.bottom) - max(self.top, other.top)
        return max(width, 0.0) * max(height, 0.0)


def text_width(text: str, size: float) -> float:
    """Pixels in a wide sans-serif font such as DejaVu Sans; most others need less."""
    widths = (0.4 if letter in _NARROW else 0.98 if letter in _WIDE else 0.64 for letter in text)
    return size * sum(widths)


def text_box(text: str, x: float, y: float, size: float, anchor: Anchor = "start") -> Box:
    """The box of one line of text whose baseline is at `y`."""
    width = text_width(text, size)
    left = x - {"start": 0.0, "middle": width / 2, "end": width}[anchor]
    return Box(left=left, top=y - 0.8 * size, right=left + width, bottom=y + 0.25 * size)


def box_around(x: float, y: float, half: float) -> Box:
    """A square with its middle at (x, y)."""
    return Box(left=x - half, top=y - half, right=x + half, bottom=y + half)
