"""The outlines of symbols, as short SVG."""

from __future__ import annotations

import math


def short(value: float) -> str:
    """A number of pixels with one decimal at most."""
    text = f"{value:.1f}"
    return text[:-2] if text.endswith(".0") else text


def symbol_path(symbol: str, x: float, y: float, half: float) -> str:
    """The path of a symbol around (x, y); `half` is half of its width."""
    if symbol == "circle":
        r, whole = short(half), short(2 * half)
        return f"M{short(x - half)} {short(y)}a{r} {r} 0 1 0 {whole} 0a{r} {r} 0 1 0 -{whole} 0z"
    if symbol == "cross":
        whole = short(2 * half)
        left, top = f"M{short(x - half)} {short(y - half)}", f"M{short(x + half)} {short(y - half)}"
        return f"{left}l{whole} {whole}{top}l-{whole} {whole}"
    points = _POLYGONS[symbol]
    return "M" + "L".join(f"{short(x + half * px)} {short(y + half * py)}" for px, py in points) + "z"


def _regular(count: int, *, turn: float = 0.0, inner: float = 1.0) -> tuple[tuple[float, float], ...]:
    """A regular polygon with a corner at the top, or a star with every second corner at `inner`."""
    corners = []
    for index in range(count):
        radius = 1.1 if index % 2 == 0 or inner == 1.0 else 1.1 * inner
        angle = turn + 2 * math.pi * index / count
        corners.append((radius * math.sin(angle), -radius * math.cos(angle)))
    return tuple(corners)


_POLYGONS = {
    "square": ((-1, -1), (1, -1), (1, 1), (-1, 1)),
    "diamond": ((0, -1), (1, 0), (0, 1), (-1, 0)),
    "triangle_up": ((0, -1), (1, 0.8), (-1, 0.8)),
    "triangle_down": ((0, 1), (1, -0.8), (-1, -0.8)),
    "arrow": ((0, -1), (0.8, 0.1), (0.25, 0.1), (0.25, 1), (-0.25, 1), (-0.25, 0.1), (-0.8, 0.1)),
    "plus": tuple(
        (x / 3, y / 3)
        for x, y in (
            (-1, -3),
            (1, -3),
            (1, -1),
            (3, -1),
            (3, 1),
            (1, 1),
            (1, 3),
            (-1, 3),
            (-1, 1),
            (-3, 1),
            (-3, -1),
            (-1, -1),
        )
    ),
    "pentagon": _regular(5),
    "hexagon": _regular(6),
    "star": _regular(10, inner=0.45),
}
