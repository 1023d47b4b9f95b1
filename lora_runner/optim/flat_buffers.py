"""Flat fp32 buffers that hold the trained state of all seats of a pack on one device.

Parameters, gradients and both moments of a (seat, group) are a segment: the same slice of four buffers, so
that one launch clips and updates a whole pack. Segments start at multiples of BLOCK, so a block of the update
never spans two of them.
"""

from __future__ import annotations

import contextlib
import math
import weakref
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields

import torch
from torch import Tensor

BLOCK = 1024
"""Elements per block, the unit of segments and of the update's kernels."""


@dataclass
class FlatBuffers:
    """Four buffers of one length, a multiple of BLOCK, on one device; what no segment holds is undefined."""

    parameters: Tensor  # (N,) fp32, as are the others
    gradients: Tensor
    exp_avg: Tensor
    exp_avg_sq: Tensor
    has_moments: bool = field(default=True, kw_only=True)
    """False when the moments are kept elsewhere, in 8 bits; the two buffers are then empty."""
    num_replaced: int = field(default=0, kw_only=True)
    """How often a buffer was replaced by one of another length; a captured graph holds the old address."""

    def present(self) -> list[tuple[str, Tensor]]:
        """The buffers by name, without moments kept elsewhere."""
        return [(name, getattr(self, name)) for name in self.names]

    @property
    def names(self) -> list[str]:
        """Names of the buffers, without moments kept elsewhere."""
        return [buffer.name for buffer in fields(self)][: 4 if self.has_moments else 2]


class SegmentViews(Mapping[str, Tensor]):
    """The named matrices of a segment in one of the buffers, each made when it is asked for."""

    def __init__(self, segment: Segment, buffer: str) -> None:
        self._segment, self._buffer = segment, buffer

    def __getitem__(self, name: str) -> Tensor:
        segment, shape = self._segment, self._segment.shapes[name]
        flat: Tensor = getattr(segment.buffers, self._buffer)
        return flat.narrow(0, segment.start + segment.offsets[name], math.prod(shape)).view(shape)

    def __iter__(self) -> Iterator[str]:
        return iter(self._segment.shapes)

    def __len__(self) -> int:
        return len(self._segment.shapes)


class Segment:
    """A slice of the buffers with its named matrices as views.

    Views are made anew by each access, since the buffers may have moved; none is to be kept while seats come
    and go.
    """

    def __init__(self, shapes: Mapping[str, tuple[int, ...]], buffers: FlatBuffers, start: int) -> None:
        self.shapes = dict(shapes)
        self.offsets: dict[str, int] = {}
        """Elements from the segment's start to each matrix."""
        self.numel = 0
        for name, shape in self.shapes.items():
            self.offsets[name] = self.numel
            self.numel += math.prod(shape)
        self.size = segment_size(shapes)
        self.start = start
        """Elements from the buffers' start; another after `SegmentAllocator.compact`."""
        self.buffers = buffers

    @property
    def stop(self) -> int:
        return self.start + self.size

    @property
    def flat_parameters(self) -> Tensor:
        return self.buffers.parameters[self.start : self.stop]

    @property
    def flat_gradients(self) -> Tensor:
        return self.buffers.gradients[self.start : self.stop]

    def views(self, buffer: str) -> SegmentViews:
        """The matrices in the buffer of this name."""
        return SegmentViews(self, buffer)

    @property
    def parameters(self) -> SegmentViews:
        return self.views("parameters")

    @property
    def gradients(self) -> SegmentViews:
        return self.views("gradients")

    @property
    def exp_avg(self) -> SegmentViews:
        return self.views("exp_avg")

    @property
    def exp_avg_sq(self) -> SegmentViews:
        return self.views("exp_avg_sq")


def segment_size(shapes: Mapping[str, tuple[int, ...]]) -> int:
    """Elements of a segment with these matrices, a multiple of BLOCK."""
    return -(-sum(map(math.prod, shapes.values())) // BLOCK) * BLOCK


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

    @property
    def has_spare(self) -> bool:
        """Whether the buffers are longer than the segments in them."""
        return self.size > sum(segment.size for segment in self._segments)

    def allocate(self, shapes: Mapping[str, tuple[int, ...]], *, to_come: int = 0) -> Segment:
        """A segment whose slice is zeroed; it is free again when nothing references the segment.

        Where the buffers have to grow, they grow by `to_come` elements more, for segments that will follow,
        if memory allows. Raises torch.OutOfMemoryError and then changes no segment.
        """
        size, start = segment_size(shapes), 0
        for other in sorted(self._segments, key=lambda allocated: allocated.start):
            if start + size <= other.start:
                break
            start = other.stop
        if start + size > self.size:
            self._grow(start + size, to_come)
        segment = Segment(shapes, self.buffers, start)
        for _, buffer in self.buffers.present():
            buffer[start : segment.stop].zero_()
        self._segments.add(segment)
        return segment

    def compact(self) -> bool:
        """Close the gaps of freed segments, and shrink the buffers to what is left.

        A buffer keeps its length if there is no memory for its smaller copy. Returns whether one got smaller.
        """
        size, before = 0, self.buffers.num_replaced
        for segment in sorted(self._segments, key=lambda allocated: allocated.start):
            if gap := segment.start - size:
                for _, buffer in self.buffers.present():
                    # Source and target may overlap; pieces of the gap's width do not, and need no memory.
                    for here in range(segment.start, segment.stop, gap):
                        piece = buffer[here : min(here + gap, segment.stop)]
                        buffer[here - gap : here - gap + len(piece)] = piece
                segment.start = size
            size = segment.stop
        with contextlib.suppress(torch.OutOfMemoryError):
            for name in self.buffers.names:
                if len(getattr(self.buffers, name)) > size:
                    self._replace(name, size)
        return self.buffers.num_replaced > before

    def _grow(self, size: int, to_come: int) -> None:
        """Make every buffer at least `size` long, and `to_come` longer than that if memory allows."""
        try:
            self._lengthen(size + to_come)
        except torch.OutOfMemoryError:
            if not to_come:
                raise
            self._lengthen(size)

    def _lengthen(self, size: int) -> None:
        for name in self.buffers.names:
            if len(getattr(self.buffers, name)) < size:
                self._replace(name, size)

    def _replace(self, name: str, size: int) -> None:
        # One buffer after another, so that only one of them exists twice.
        old, used = getattr(self.buffers, name), max((segment.stop for segment in self._segments), default=0)
        other = torch.empty(size, device=self.device)
        other[:used] = old[:used]
        setattr(self.buffers, name, other)
        self.buffers.num_replaced += 1
