"""Flat fp32 buffers that hold the trained state of all seats of a pack on one device.

Parameters, gradients and both moments of a (seat, group) are a segment: the same slice of four buffers, so
that one launch clips and updates a whole pack. Segments start at multiples of BLOCK, so a block of the update
never spans two of them.
"""

from __future__ import annotations

import contextlib
import math
import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields

import torch
from torch import Tensor

BLOCK = 1024
"""Elements per block, the unit of segments and of the update's kernels."""


@dataclass
class FlatBuffers:
    """Four buffers of one length, a multiple of BLOCK, on one device."""

    parameters: Tensor  # (N,) fp32, as are the others
    gradients: Tensor
    exp_avg: Tensor
    exp_avg_sq: Tensor
    has_moments: bool = field(default=True, kw_only=True)
    """False when the moments are kept elsewhere, in 8 bits; the two buffers are then empty."""

    def present(self) -> list[tuple[str, Tensor]]:
        """The buffers by name, without moments kept elsewhere."""
        names = [buffer.name for buffer in fields(self)][: 4 if self.has_moments else 2]
        return [(name, getattr(self, name)) for name in names]


class Segment:
    """A slice of the buffers with its named matrices as views, which follow when the buffers move.

    `moved` is called with the segment when its views are new; a weak reference, so that the allocator keeps
    no seat alive.
    """

    def __init__(
        self, shapes: Mapping[str, tuple[int, ...]], moved: weakref.WeakMethod[Callable[[Segment], None]]
    ) -> None:
        self.shapes = dict(shapes)
        self.numel = sum(map(math.prod, self.shapes.values()))
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
        """Point the views into `buffers`."""
        start = self.start
        self.flat_parameters = buffers.parameters[start : self.stop]
        self.flat_gradients = buffers.gradients[start : self.stop]
        for name, shape in self.shapes.items():
            stop = start + math.prod(shape)
            for kind, buffer in buffers.present():
                getattr(self, kind)[name] = buffer[start:stop].view(shape)
            start = stop
        if (tell := self._moved()) is not None:
            tell(self)


class SegmentAllocator:
    """Allocates segments for seats that come and go; the buffers grow when no gap is wide enough."""

    def __init__(self, device: torch.device, *, has_moments: bool = True) -> None:
        self.device = device
        empty = (torch.empty(0, device=device) for _ in range(4))
        self.buffers = FlatBuffers(*empty, has_moments=has_moments)
        self._segments: weakref.WeakSet[Segment] = weakref.WeakSet()

    @property
    def size(self) -> int:
        """Elements of each buffer."""
        return min(len(buffer) for _, buffer in self.buffers.present())

    def allocate(self, segment: Segment) -> None:
        """Give `segment` a zeroed slice; it is free again when nothing references the segment.

        Raises torch.OutOfMemoryError and then changes nothing.
        """
        start = 0
        for other in sorted(self._segments, key=lambda allocated: allocated.start):
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
        """Close the gaps of freed segments, and shrink the buffers to what is left.

        A buffer keeps its length if there is no memory for its smaller copy.
        """
        size = 0
        for segment in sorted(self._segments, key=lambda allocated: allocated.start):
            if gap := segment.start - size:
                for _, buffer in self.buffers.present():
                    # Source and target may overlap; pieces of the gap's width do not, and need no memory.
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
            # One after another, so that only one of them exists twice.
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
