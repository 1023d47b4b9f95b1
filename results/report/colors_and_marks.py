"""Colors and marks for plots, distinguishable with any color vision, on light and dark pages.

The hues are those of Okabe and Ito ("Color Universal Design", 2008). Outcomes and schedulers also differ in
their marks, so that no meaning depends on color alone.
"""

from __future__ import annotations

BLUE, VERMILLION, GREEN, ORANGE = "#0072B2", "#D55E00", "#009E73", "#E69F00"
PURPLE, SKY, GREY, INK = "#CC79A7", "#56B4E9", "#7A7F87", "#1B1F24"

DARK_COLORS = {
    BLUE: "#5AB4F0",
    VERMILLION: "#FF8A4C",
    GREEN: "#2FC79A",
    ORANGE: "#F2B84B",
    PURPLE: "#E6A3C8",
    SKY: "#9AD4FA",
    GREY: "#9AA1AB",
    INK: "#E8EAED",
}
"""The same colors on a dark page; the page's script replaces them."""

COLOR_SCALE = "Cividis"
"""Suited to color-blind readers; its lightness is monotonic."""

OUTCOME_STYLES = {
    "complete": (BLUE, "circle", ""),
    "pruned": (ORANGE, "x", "/"),
    "diverged": (VERMILLION, "triangle-up", "x"),
    "out_of_memory": (PURPLE, "square", "+"),
    "failed": (INK, "cross", "\\"),
    "running": (SKY, "circle-open", "."),
}
"""Outcome -> color, mark, pattern of a bar."""

CATEGORY_STYLES = (
    (BLUE, "circle"),
    (ORANGE, "square"),
    (GREEN, "diamond"),
    (PURPLE, "triangle-up"),
    (SKY, "pentagon"),
    (VERMILLION, "hexagon"),
    (GREY, "triangle-down"),
)
"""Color and mark of the n-th category."""


def readable(name: str) -> str:
    """`out of memory` for `out_of_memory`."""
    return name.replace("_", " ")
