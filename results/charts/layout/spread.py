"""Marks that would hide each other are moved apart a little, the same way every time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

_NEAR = 0.8
"""Marks nearer than this share of their size hide each other."""
_MOST_STEPS = 8
"""A mark is moved by at most half as many of its widths: its place still tells its value."""


@dataclass(frozen=True, kw_only=True)
class Point:
    x: float
    y: float
    half: float
    """Half of the mark's width, pixels."""


def spread(
    points: Sequence[Point], *, left: float, right: float, rows: Sequence[float] = (0.0,)
) -> list[Point]:
    """The points in their order, moved where others are too near: to another row, else sideways.

    `rows` are distances by which a point may be moved down. None leaves the range from `left` to `right`.
    Where no place is free, the least moved stays shared.
    """
    grid = _Grid(cell=2 * max((point.half for point in points), default=1.0))
    placed = []
    for index, point in enumerate(points):
        tried = [p for p in _places(point, rows) if left <= p.x - p.half and p.x + p.half <= right]
        shared = Point(x=point.x, y=point.y + rows[index % len(rows)], half=point.half)
        chosen = next((p for p in tried if grid.is_free(p)), shared)
        grid.add(chosen)
        placed.append(chosen)
    return placed


def _places(point: Point, rows: Sequence[float]) -> Iterator[Point]:
    step = point.half * _NEAR * 1.01
    for count in range(_MOST_STEPS + 1):
        for move in (count * step, -count * step)[: 2 if count else 1]:
            for row in rows:
                yield Point(x=point.x + move, y=point.y + row, half=point.half)


@dataclass
class _Grid:
    """Points by the cell they lie in: with hundreds of trials, comparing all pairs would take a second."""

    cell: float
    points: dict[tuple[int, int], list[Point]] = field(default_factory=dict)

    def add(self, point: Point) -> None:
        self.points.setdefault(self._key(point), []).append(point)

    def is_free(self, point: Point) -> bool:
        column, row = self._key(point)
        near = (self.points.get((column + i, row + j), ()) for i in (-1, 0, 1) for j in (-1, 0, 1))
        return not any(_hides(point, other) for cell in near for other in cell)

    def _key(self, point: Point) -> tuple[int, int]:
        return int(point.x // self.cell), int(point.y // self.cell)


def _hides(one: Point, other: Point) -> bool:
    near = _NEAR * (one.half + other.half)
    return abs(one.x - other.x) < near and abs(one.y - other.y) < near
