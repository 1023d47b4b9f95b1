"""Allocating and freeing segments in flat buffers."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import pytest
import torch

from lora_runner.optim.flat_buffers import BLOCK, Segment, SegmentAllocator

CPU = torch.device("cpu")


class Owner:
    """Is called when a segment's views are new."""

    def moved(self, segment: Segment) -> None:
        assert segment.parameters  # and it keeps no reference to it


def allocated(allocator: SegmentAllocator, owner: Owner, numel: int, value: float) -> Segment:
    """A segment whose four buffers hold value, value + 0.1, ... everywhere."""
    segment = Segment({"weight": (numel,)}, moved=weakref.WeakMethod(owner.moved))
    allocator.allocate(segment)
    for index, (kind, _) in enumerate(allocator.buffers.present()):
        getattr(segment, kind)["weight"].fill_(value + index / 10)
    return segment


def held(allocator: SegmentAllocator, segment: Segment) -> list[set[float]]:
    kinds = [kind for kind, _ in allocator.buffers.present()]
    return [set(getattr(segment, kind)["weight"].tolist()) for kind in kinds]


@pytest.mark.parametrize("has_moments", [True, False])
@pytest.mark.parametrize(
    ("blocks", "gone"),
    [
        ((1, 5, 2), {0}),
        ((5, 1, 2), {0}),
        ((2, 2, 2), {1}),
        ((1, 2, 3), {2}),
        ((3, 1, 4, 2), {0, 2}),
        ((2,), {0}),
    ],
)
def test_compacting_closes_gaps_and_keeps_what_is_there(
    blocks: tuple[int, ...], gone: set[int], has_moments: bool
) -> None:
    allocator, owner = SegmentAllocator(CPU, has_moments=has_moments), Owner()
    segments: list[Any] = [
        allocated(allocator, owner, count * BLOCK - 3, float(index + 1)) for index, count in enumerate(blocks)
    ]
    for index in gone:
        segments[index] = None
    gc.collect()
    before = {index: held(allocator, s) for index, s in enumerate(segments) if s is not None}
    allocator.compact()
    left = {index: s for index, s in enumerate(segments) if s is not None}
    assert allocator.size == sum(segment.size for segment in left.values())
    assert {index: held(allocator, segment) for index, segment in left.items()} == before
    for segment in left.values():
        assert segment.parameters["weight"].data_ptr() == segment.flat_parameters.data_ptr()
    # The next one is allocated as usual, zeroed.
    late = Segment({"weight": (7,)}, moved=weakref.WeakMethod(owner.moved))
    allocator.allocate(late)
    assert late.start == sum(segment.size for segment in left.values())
    assert late.parameters["weight"].tolist() == [0.0] * 7
    assert {index: held(allocator, segment) for index, segment in left.items()} == before


def test_a_buffer_that_finds_no_memory_to_shrink_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    allocator, owner = SegmentAllocator(CPU), Owner()
    first, second = allocated(allocator, owner, BLOCK, 1.0), allocated(allocator, owner, 2 * BLOCK, 2.0)
    expected = held(allocator, second)
    del first

    def full(*_: Any, **__: Any) -> torch.Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory.")

    with monkeypatch.context() as patch:
        patch.setattr("lora_runner.optim.flat_buffers.torch.zeros", full)
        allocator.compact()
    assert (second.start, allocator.size) == (0, 3 * BLOCK)
    assert held(allocator, second) == expected
    allocator.compact()
    assert allocator.size == 2 * BLOCK
    assert held(allocator, second) == expected
