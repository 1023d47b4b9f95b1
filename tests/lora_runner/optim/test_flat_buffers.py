"""Allocating and freeing segments in flat buffers."""

from __future__ import annotations

import gc
from typing import Any

import pytest
import torch

from lora_runner.optim.flat_buffers import BLOCK, Segment, SegmentAllocator

CPU = torch.device("cpu")


def allocated(allocator: SegmentAllocator, numel: int, value: float, *, to_come: int = 0) -> Segment:
    """A segment whose four buffers hold value, value + 0.1, ... everywhere."""
    segment = allocator.allocate({"weight": (numel,)}, to_come=to_come)
    for index, (kind, _) in enumerate(allocator.buffers.present()):
        segment.views(kind)["weight"].fill_(value + index / 10)
    return segment


def held(allocator: SegmentAllocator, segment: Segment) -> list[set[float]]:
    kinds = [kind for kind, _ in allocator.buffers.present()]
    return [set(segment.views(kind)["weight"].tolist()) for kind in kinds]


def limit_memory(patch: pytest.MonkeyPatch, most: int) -> None:
    """No buffer of more than `most` elements can be allocated."""
    empty = torch.empty

    def limited(size: int, *, device: torch.device) -> torch.Tensor:
        if size > most:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return empty(size, device=device)

    patch.setattr("lora_runner.optim.flat_buffers.torch.empty", limited)


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
    allocator = SegmentAllocator(CPU, has_moments=has_moments)
    segments: list[Any] = [
        allocated(allocator, count * BLOCK - 3, float(index + 1)) for index, count in enumerate(blocks)
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
    late = allocator.allocate({"weight": (7,)})
    assert late.start == sum(segment.size for segment in left.values())
    assert late.parameters["weight"].tolist() == [0.0] * 7
    assert {index: held(allocator, segment) for index, segment in left.items()} == before


def test_a_buffer_that_finds_no_memory_to_shrink_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    allocator = SegmentAllocator(CPU)
    first, second = allocated(allocator, BLOCK, 1.0), allocated(allocator, 2 * BLOCK, 2.0)
    expected = held(allocator, second)
    del first

    with monkeypatch.context() as patch:
        limit_memory(patch, 0)
        assert not allocator.compact()
    assert (second.start, allocator.size) == (0, 3 * BLOCK)
    assert held(allocator, second) == expected
    assert allocator.compact()
    assert allocator.size == 2 * BLOCK
    assert held(allocator, second) == expected


def test_buffers_grow_once_for_the_segments_that_are_to_come() -> None:
    allocator = SegmentAllocator(CPU)
    first = allocated(allocator, 2 * BLOCK, 1.0, to_come=6 * BLOCK)
    expected = held(allocator, first)
    addresses = [buffer.data_ptr() for _, buffer in allocator.buffers.present()]
    assert (allocator.size, allocator.buffers.num_replaced) == (8 * BLOCK, 4)
    others = [allocated(allocator, 2 * BLOCK, 2.0 + left, to_come=left * 2 * BLOCK) for left in (2, 1, 0)]
    assert [segment.start for segment in others] == [2 * BLOCK, 4 * BLOCK, 6 * BLOCK]
    assert [buffer.data_ptr() for _, buffer in allocator.buffers.present()] == addresses
    assert allocator.buffers.num_replaced == 4
    assert not allocator.has_spare
    # One more replaces them, and says so.
    allocated(allocator, BLOCK, 9.0)
    assert allocator.buffers.num_replaced == 8
    assert held(allocator, first) == expected


def test_memory_for_segments_to_come_is_only_taken_where_there_is_enough(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    allocator = SegmentAllocator(CPU)
    limit_memory(monkeypatch, 4 * BLOCK)
    first = allocated(allocator, 2 * BLOCK, 1.0, to_come=10 * BLOCK)
    assert (allocator.size, allocator.has_spare) == (2 * BLOCK, False)
    second = allocated(allocator, 2 * BLOCK, 2.0, to_come=10 * BLOCK)
    expected = held(allocator, first), held(allocator, second)
    with pytest.raises(torch.OutOfMemoryError):
        allocator.allocate({"weight": (BLOCK,)}, to_come=BLOCK)
    assert (held(allocator, first), held(allocator, second)) == expected
    assert allocator.size == 4 * BLOCK


def test_memory_for_segments_to_come_is_given_back() -> None:
    allocator = SegmentAllocator(CPU)
    segment = allocated(allocator, BLOCK, 1.0, to_come=3 * BLOCK)
    expected = held(allocator, segment)
    assert allocator.has_spare
    assert allocator.compact()
    assert (allocator.size, allocator.has_spare, allocator.compact()) == (BLOCK, False, False)
    assert held(allocator, segment) == expected


def test_views_are_made_when_they_are_asked_for() -> None:
    """Views that were taken from a segment before its buffers grew are of the old ones."""
    allocator = SegmentAllocator(CPU)
    segment = allocator.allocate({"a": (2, 3), "b": (4,)})
    views = segment.parameters
    assert (list(views), len(views), segment.offsets) == (["a", "b"], 2, {"a": 0, "b": 6})
    old = views["b"]
    allocator.allocate({"c": (BLOCK,)})
    views["b"].fill_(5.0)
    assert segment.flat_parameters[6:10].tolist() == [5.0] * 4
    assert old.tolist() == [0.0] * 4
    assert views["a"].shape == (2, 3)
    with pytest.raises(KeyError):
        views["c"]
