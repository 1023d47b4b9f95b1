"""Buckets of passes: sizes rounded up so that passes of different batches share one captured graph.

Padding never changes a number: every row is computed by itself, so rows beyond those of the trials belong to
one more block without adapter, and their results are not read.
"""

from __future__ import annotations

ROW_MULTIPLE = 64
"""Rows are padded to a multiple of this at least."""
RANK_MULTIPLE = 16
"""The least columns that a tensor core multiplies."""


def padded_rows(num_rows: int) -> int:
    """Rows of a pass with its padding: a multiple of a 32nd of the next power of two.

    So at most 1/16 is added, and 16 buckets lie between a number and its double; below 2,048 rows the
    multiple is `ROW_MULTIPLE`.
    """
    step = max(ROW_MULTIPLE, 1 << max(0, (num_rows - 1).bit_length() - 5))
    return -(-num_rows // step) * step


def padded_count(count: int) -> int:
    """Room for `count` sequences or blocks: the next power of two, and one for the padding rows."""
    return (1 << max(0, count - 1).bit_length()) + 1


def padded_rank(rank: int) -> int:
    """Columns for the largest padded rank of a pass, at least one multiple."""
    return -(-max(1, rank) // RANK_MULTIPLE) * RANK_MULTIPLE
