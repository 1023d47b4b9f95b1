"""Where labels go: beside what they name, on nothing else, and inside of the frame."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from results.charts.layout.boxes import Anchor, Box, text_box


@dataclass(frozen=True, kw_only=True)
class Label:
    """A placed line of text; (x, y) is the end of its baseline that `anchor` names."""

    text: str
    x: float
    y: float
    size: float
    anchor: Anchor = "start"
    style: str = ""

    @property
    def box(self) -> Box:
        return text_box(self.text, self.x, self.y, self.size, self.anchor)


def best_place(
    tried: Iterable[Label], *, inside: Box, taken: Sequence[Box], marks: Sequence[Box]
) -> Label | None:
    """The first label that overlaps nothing; else the one that covers least of the marks.

    `taken` are boxes of other labels, which are never overlapped. None where there is no such place.
    """
    allowed = [
        label
        for label in tried
        if label.box.is_inside(inside) and not any(label.box.overlaps(box) for box in taken)
    ]
    covered = [sum(label.box.shared_area(mark) for mark in marks) for label in allowed]
    return allowed[covered.index(min(covered))] if allowed else None


def beside(text: str, x: float, y: float, *, half: float, size: float, style: str) -> Iterator[Label]:
    """Places around a mark, the nearest and most usual first."""
    for reach in (0.0, 10.0, 22.0, 36.0, 52.0):
        gap = half + 4 + reach
        places: tuple[tuple[float, float, Anchor], ...] = (
            (x + gap, y + 0.3 * size, "start"),
            (x - gap, y + 0.3 * size, "end"),
            (x, y - gap, "middle"),
            (x, y + gap + 0.8 * size, "middle"),
            (x + gap, y - gap, "start"),
            (x - gap, y - gap, "end"),
            (x + gap, y + gap + 0.6 * size, "start"),
            (x - gap, y + gap + 0.6 * size, "end"),
        )
        for left, base, anchor in places:
            yield Label(text=text, x=left, y=base, size=size, anchor=anchor, style=style)


def along_line(text: str, y: float, *, frame: Box, size: float, style: str) -> Iterator[Label]:
    """Places above and below a horizontal line, from its right end to its left."""
    for share in (1.0, 0.0, 0.75, 0.5, 0.25):
        x = frame.left + 4 + share * (frame.width - 8)
        anchor: Anchor = "end" if share > 0.7 else "start" if share < 0.3 else "middle"
        for base in (y - 4, y + size):
            yield Label(text=text, x=x, y=base, size=size, anchor=anchor, style=style)


def beside_line(text: str, x: float, *, frame: Box, size: float, style: str) -> Iterator[Label]:
    """Places right and left of a vertical line, from the bottom of the frame upwards."""
    for share in (0.0, 0.065, 0.13, 0.25, 0.4, 0.6, 0.8):
        base = frame.bottom - 6 - share * frame.height
        yield Label(text=text, x=x + 5, y=base, size=size, anchor="start", style=style)
        yield Label(text=text, x=x - 5, y=base, size=size, anchor="end", style=style)


def moved_apart(heights: Sequence[float], *, step: float, low: float, high: float) -> list[float]:
    """Rising heights, at least `step` apart and between `low` and `high`, each as near as that allows."""
    found = list(heights)
    for index, at in enumerate(found):
        found[index] = max(at, low if index == 0 else found[index - 1] + step)
    limit = high
    for index in reversed(range(len(found))):
        found[index] = min(found[index], limit)
        limit = found[index] - step
    return found
