"""Colours and marks that people with any colour vision tell apart, in light and in dark.

The hues are those of Okabe and Ito ("Color Universal Design", 2008). No meaning rests on a colour alone:
outcomes and schedulers differ in their marks too.
"""

from __future__ import annotations

BLUE, VERMILLION, GREEN, ORANGE = "#0072B2", "#D55E00", "#009E73", "#E69F00"
PURPLE, SKY, GREY, INK = "#CC79A7", "#56B4E9", "#7A7F87", "#1B1F24"

IN_THE_DARK = {
    BLUE: "#5AB4F0",
    VERMILLION: "#FF8A4C",
    GREEN: "#2FC79A",
    ORANGE: "#F2B84B",
    PURPLE: "#E6A3C8",
    SKY: "#9AD4FA",
    GREY: "#9AA1AB",
    INK: "#E8EAED",
}
"""The same colours on a dark page; the page's script puts them in."""

COLOUR_SCALE = "Cividis"
"""Made for colour-blind eyes; its lightness runs one way."""

OUTCOMES = {
    "complete": (BLUE, "circle", ""),
    "pruned": (ORANGE, "x", "/"),
    "diverged": (VERMILLION, "triangle-up", "x"),
    "out_of_memory": (PURPLE, "square", "+"),
    "failed": (INK, "cross", "\\"),
    "running": (SKY, "circle-open", "."),
}
"""Outcome -> colour, mark, pattern of a bar."""

SERIES = (
    (BLUE, "circle"),
    (ORANGE, "square"),
    (GREEN, "diamond"),
    (PURPLE, "triangle-up"),
    (SKY, "pentagon"),
    (VERMILLION, "hexagon"),
    (GREY, "triangle-down"),
)
"""Colour and mark of the n-th name of a categorical."""


def spoken(outcome: str) -> str:
    """`out of memory` for `out_of_memory`."""
    return outcome.replace("_", " ")
