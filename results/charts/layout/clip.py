"""The parts of a line that lie between two heights."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

_Point = tuple[float, float]


def clipped_parts(points: Sequence[_Point], low: float, high: float) -> list[list[_Point]]:
    """The line through `points`, cut where it leaves the range of y from `low` to `high`.

    One part for each time that it comes back; a single point inside is a part of its own.
    """
    if len(points) == 1:
        return [list(points)] if low <= points[0][1] <= high else []
    parts: list[list[_Point]] = []
    for start, end in pairwise(points):
        piece = _clipped(start, end, low, high)
        if piece is None:
            continue
        if parts and parts[-1][-1] == piece[0]:
            parts[-1].append(piece[1])
        else:
            parts.append(list(piece))
    return parts


def _clipped(start: _Point, end: _Point, low: float, high: float) -> tuple[_Point, _Point] | None:
    (x1, y1), (x2, y2) = start, end
    if max(y1, y2) < low or min(y1, y2) > high:
        return None

    def inside(x: float, y: float) -> _Point:
        at = min(max(y, low), high)
        return (x, y) if at == y else (x1 + (x2 - x1) * (at - y1) / (y2 - y1), at)

    return inside(x1, y1), inside(x2, y2)
