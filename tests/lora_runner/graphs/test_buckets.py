"""Sizes of buckets."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from lora_runner.graphs.buckets import padded_count, padded_rank, padded_rows


@given(st.integers(1, 200_000))
def test_rows_are_padded_by_a_sixteenth_at_most(rows: int) -> None:
    padded = padded_rows(rows)
    assert padded >= rows
    assert padded % 64 == 0
    assert padded - rows < max(64, rows / 16)
    assert padded_rows(padded) == padded


def test_few_buckets_lie_between_a_number_and_its_double() -> None:
    for rows in (2048, 8192):
        assert len({padded_rows(n) for n in range(rows + 1, 2 * rows + 1)}) == 16


def test_counts_leave_room_for_the_padding_rows() -> None:
    assert [padded_count(n) for n in (0, 1, 2, 3, 4, 5, 8, 9)] == [2, 2, 3, 5, 5, 9, 9, 17]


def test_ranks_fill_whole_columns() -> None:
    assert [padded_rank(r) for r in (0, 8, 16, 24, 64)] == [16, 16, 16, 32, 64]
