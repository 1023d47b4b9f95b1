"""Colors and symbols, each with one meaning in every chart.

The hues are those of Okabe and Ito ("Color Universal Design", 2008), which differ with any color vision.
Schedulers and outcomes also differ in their symbols, so that no meaning depends on color alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from files_and_text.choices import SCHEDULERS


@dataclass(frozen=True, kw_only=True)
class Style:
    light: str
    """The color on a white page."""
    dark: str
    """The color on a dark page."""
    symbol: str = "circle"
    is_open: bool = False
    """Whether the symbol is an outline."""
    size: float = 5
    """Half of the symbol's width, pixels."""
    dash: str = ""
    """Of lines, as SVG writes it; "" for a solid one."""

    @property
    def kind(self) -> str:
        """`o` for an outline, `m` for a filled symbol."""
        return "o" if self.is_open or self.symbol == "cross" else "m"


_GREY, _INK, _SLATE = ("#7D8690", "#8B939D"), ("#1B1F24", "#E8EAED"), ("#44586C", "#B4C4D5")
_BLUE, _GREEN, _RED = ("#0072B2", "#5AB4F0"), ("#00805C", "#2FC79A"), ("#C23B00", "#FF8A4C")


def _style(colors: tuple[str, str], symbol: str = "circle", **options: bool | float | str) -> Style:
    return Style(light=colors[0], dark=colors[1], symbol=symbol, **options)  # type: ignore[arg-type]


_SCHEDULER_STYLES = (
    _style(("#E69F00", "#F2B84B")),
    _style(("#B0528F", "#E6A3C8"), "square", size=4.5),
    _style(("#3AA0DC", "#9AD4FA"), "triangle_up", size=5.5),
    _style(("#8A6D3B", "#C9A86A"), "triangle_down", size=5.5),
    _style(("#5B5EA6", "#A9ACEF"), "pentagon", size=5.5),
    _style(("#7A8B00", "#C3D64B"), "hexagon", size=5.5),
    _style(("#2E8B8B", "#6FD0D0"), "plus", size=5.5),
)
OTHER_SCHEDULER = "scheduler-other"

STYLES: Mapping[str, Style] = {
    "best": _style(_GREEN, "star", size=9),
    "default": _style(_BLUE, "diamond", size=8, dash="6 4"),
    "table": _style(_BLUE, "diamond", size=5),
    "base": _style(_GREY, "circle", dash="2 4"),
    "trial": _style(_SLATE, size=5),
    "shaded": _style(_INK, size=6),
    "pruned": _style(_GREY, "cross", size=4),
    "frozen": _style(_GREY, "circle", is_open=True, size=4),
    "diverged": _style(_RED, "triangle_down", is_open=True, size=4.5),
    "out_of_memory": _style(_RED, "square", is_open=True, size=4.5),
    "failed": _style(_RED, "cross", size=4.5),
    "running": _style(_INK, "circle", is_open=True, size=4.5, dash="2 3"),
    "above": _style(_INK, "arrow", is_open=True, size=4.5),
    "rung": _style(_GREY, dash="1 3"),
    "axis": _style(_GREY),
    OTHER_SCHEDULER: _style(_INK, "circle", size=5),
    **{f"scheduler-{name}": style for name, style in zip(SCHEDULERS, _SCHEDULER_STYLES, strict=True)},
}

SHADES = 10


def _shades(strong: str, pale: str) -> tuple[str, ...]:
    """Even steps between two colors."""
    ends = [[int(color[i : i + 2], 16) for i in (1, 3, 5)] for color in (strong, pale)]
    steps = [
        [round(a + (b - a) * k / (SHADES - 1)) for a, b in zip(*ends, strict=True)] for k in range(SHADES)
    ]
    return tuple("#" + "".join(f"{part:02X}" for part in step) for step in steps)


SHADES_LIGHT, SHADES_DARK = _shades("#005A42", "#E3EBE7"), _shades("#58EDC0", "#2B3834")
"""Losses from low to high in the hue of the best: only lightness differs, so any color vision reads it."""


def scheduler_style(name: str) -> str:
    """The style of a scheduler: the same in every sweep."""
    return f"scheduler-{name}" if name in SCHEDULERS else OTHER_SCHEDULER
