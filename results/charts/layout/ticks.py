"""The ticks of both axes, with the labels for which there is room."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from results.charts.chart import Axis, Tick
from results.charts.layout.boxes import Box, text_width
from results.charts.layout.labels import Label
from results.charts.layout.scales import Scale, ticks_of
from results.charts.layout.sizes import Size

_MOST_OF_WIDTH = 0.3
"""Names that take more than this share of the picture stand above their lanes instead of left of them."""


@dataclass(frozen=True, kw_only=True)
class PlacedTick:
    at: float
    """Pixel."""
    label: Label | None
    """None where there is no room for it."""


def left_margin(axis: Axis, size: Size, height: float) -> float:
    """Room for the labels of a y axis that is `height` pixels high."""
    ticks = _y_ticks(axis, height)
    return 8 if _are_above(ticks, size) else _widest(ticks, size) + 14


def are_names_above(axis: Axis, size: Size, height: float) -> bool:
    """Whether the labels of the y axis stand above their lanes."""
    return _are_above(_y_ticks(axis, height), size)


def x_ticks(axis: Axis, scale: Scale, size: Size, bottom: float) -> list[PlacedTick]:
    """Below `bottom`; where labels would touch or leave the picture, the least round are left out."""
    ticks = ticks_of(axis, int(abs(scale.end - scale.start) / 46))
    kept: list[Box] = []
    found: dict[float, Label] = {}
    for tick in sorted(ticks, key=_roundness):
        at, base = scale.pixel(tick.at), bottom + size.small + 7
        label = Label(text=tick.text, x=at, y=base, size=size.small, anchor="middle", style="soft")
        box = label.box
        room = Box(left=box.left - 5, top=box.top, right=box.right + 5, bottom=box.bottom)
        if box.left >= 0 and box.right <= size.width and not any(room.overlaps(other) for other in kept):
            kept.append(box)
            found[tick.at] = label
    return [PlacedTick(at=scale.pixel(tick.at), label=found.get(tick.at)) for tick in ticks]


def y_ticks(axis: Axis, scale: Scale, size: Size, frame: Box) -> list[PlacedTick]:
    """Left of the frame, or long names above their lanes."""
    ticks = _y_ticks(axis, frame.height)
    if not _are_above(ticks, size):
        return [PlacedTick(at=(at := scale.pixel(t.at)), label=_left(t.text, at, frame, size)) for t in ticks]
    rise = 0.5 * abs(scale.pixel(1) - scale.pixel(0)) - size.small - 1
    return [
        PlacedTick(at=(at := scale.pixel(t.at)), label=_above(t.text, at - rise, frame, size)) for t in ticks
    ]


def _left(text: str, at: float, frame: Box, size: Size) -> Label:
    base = at + 0.35 * size.small
    return Label(text=text, x=frame.left - 7, y=base, size=size.small, anchor="end", style="soft")


def _above(text: str, base: float, frame: Box, size: Size) -> Label:
    return Label(text=text, x=frame.left, y=base, size=size.small, style="soft")


def _y_ticks(axis: Axis, height: float) -> list[Tick]:
    return ticks_of(axis, max(2, int(height / 48)))


def _are_above(ticks: Sequence[Tick], size: Size) -> bool:
    return _widest(ticks, size) > _MOST_OF_WIDTH * size.width


def _widest(ticks: Sequence[Tick], size: Size) -> float:
    return max([text_width(tick.text, size.small) for tick in ticks], default=0.0)


def _roundness(tick: Tick) -> int:
    """Powers of ten are labeled first."""
    digits = f"{tick.at:.2e}".split("e")[0].rstrip("0").rstrip(".")
    return 0 if digits in ("1", "0") else len(digits)
