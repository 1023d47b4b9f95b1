"""Flat fp32 buffers that hold the trained state of all seats of a pack on one device.

Parameters, gradients and both moments of a (seat, group) lie in one segment, at the same place in four
buffers, so that one launch clips and updates a whole pack. Segments start at multiples of BLOCK: a block of
the update never spans two of them.
"""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields

import torch
from torch import Tensor

BLOCK = 1024
"""Elements; the unit in which segments are laid out and the update's kernels work."""


@dataclass
class FlatBuffers:
    """Four buffers of one length, a multiple of BLOCK, on one device."""

    parameters: Tensor  # (N,) fp32, as are the others
    gradients: Tensor
    exp_avg: Tensor
    exp_avg_sq: Tensor
    has_moments: bool = field(default=True, kw_only=True)
    """False where the moments are kept elsewhere, in 8 bits; the two buffers are then empty."""

    def present(self) -> list[tuple[str, Tensor]]:
        """The buffers by name, without moments that are kept elsewhere."""
        names = [buffer.name for buffer in fields(self)][: 4 if self.has_moments else 2]
        return [(name, getattr(self, name)) for name in names]


class Segment:
    """The place of named matrices in the buffers; the views follow when the buffers move.

    `moved` is called with the segment when its views are new ones; weak, for the arena keeps no seat alive.
    """

    def __init__(
        self, shapes: Mapping[str, tuple[int, ...]], moved: weakref.WeakMethod[Callable[[Segment], None]]
    ) -> None:
        self.shapes = dict(shapes)
        self.numel = sum(_numel(shape) for shape in self.shapes.values())
        self.size = -(-self.numel // BLOCK) * BLOCK
        self.start = 0
        self.parameters: dict[str, Tensor] = {}
        self.gradients: dict[str, Tensor] = {}
        self.exp_avg: dict[str, Tensor] = {}
        self.exp_avg_sq: dict[str, Tensor] = {}
        self.flat_parameters = self.flat_gradients = torch.empty(0)
        self._moved = moved

    @property
    def stop(self) -> int:
        return self.start + self.size

    def bind(self, buffers: FlatBuffers) -> None:
        """Make the views those of `buffers`."""
        start = self.start
        self.flat_parameters = buffers.parameters[start : self.stop]
        self.flat_gradients = buffers.gradients[start : self.stop]
        for name, shape in self.shapes.items():
            stop = start + _numel(shape)
            for kind, buffer in buffers.present():
                getattr(self, kind)[name] = buffer[start:stop].view(shape)
            start = stop
        if (tell := self._moved()) is not None:
            tell(self)


class SegmentAllocator:
    """Segments of seats that come and go, in buffers that grow when no gap is wide enough."""

    def __init__(self, device: torch.device, *, has_moments: bool = True) -> None:
        self.device = device
        empty = (torch.empty(0, device=device) for _ in range(4))
        self.buffers = FlatBuffers(*empty, has_moments=has_moments)
        self._segments: weakref.WeakSet[Segment] = weakref.WeakSet()

    @property
    def size(self) -> int:
        """Elements that all buffers have room for."""
        return min(len(buffer) for _, buffer in self.buffers.present())

    def place(self, segment: Segment) -> None:
        """Give `segment` a zeroed place; it is free again when nobody holds the segment any more.

        Raises torch.OutOfMemoryError, and is then as it was.
        """
        start = 0
        for other in sorted(self._segments, key=lambda placed: placed.start):
            if start + segment.size <= other.start:
                break
            start = other.stop
        if start + segment.size > self.size:
            self._resize(start + segment.size)
        segment.start = start
        for _, buffer in self.buffers.present():
            buffer[segment.start : segment.stop].zero_()
        self._segments.add(segment)
        segment.bind(self.buffers)

    def compact(self) -> None:
        """Close the gaps of segments that are gone, and shrink the buffers to what is left.

        A buffer that finds no memory for its smaller copy stays as long as it was.
        """
        size = 0
        for segment in sorted(self._segments, key=lambda placed: placed.start):
            if gap := segment.start - size:
                for _, buffer in self.buffers.present():
                    # The two places may overlap; pieces of the gap's width do not, and need no memory.
                    for here in range(segment.start, segment.stop, gap):
                        piece = buffer[here : min(here + gap, segment.stop)]
                        buffer[here - gap : here - gap + len(piece)] = piece
                segment.start = size
            size = segment.stop
        self._bind_all()
        with contextlib.suppress(torch.OutOfMemoryError):
            self._resize(size)

    def _resize(self, size: int) -> None:
        for kind in [kind for kind, _ in self.buffers.present()]:
            # One after another, each released at once: never more than one of them exists twice.
            old = getattr(self.buffers, kind)
            if len(old) == size:
                continue
            other, kept = torch.zeros(size, device=self.device), min(size, len(old))
            other[:kept] = old[:kept]
            setattr(self.buffers, kind, other)
            del old
            self._bind_all()

    def _bind_all(self) -> None:
        for segment in self._segments:
            segment.bind(self.buffers)


def _numel(shape: tuple[int, ...]) -> int:
    return int(torch.Size(shape).numel())
