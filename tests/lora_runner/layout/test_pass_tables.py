"""Tables of a pass: what they say, and that they are refreshed in place."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from lora_runner.layout.pass_tables import TILE_ROWS, BlockAdapter, PassShape, PassTables

CPU = torch.device("cpu")
SHAPE = PassShape(num_rows=256, num_blocks=4, num_layers=3, rank_columns=32)


def adapter(start: int = 0, rank: int = 8, keys: list[int] | None = None) -> BlockAdapter:
    return BlockAdapter(start, rank, 2.5, 7, None if keys is None else np.array(keys), 11)


def test_rows_beyond_the_blocks_are_padding_without_an_adapter() -> None:
    tables = PassTables.of(SHAPE, [(adapter(1024, 16, [1, 2, 3]), 70), (None, 5), (adapter(), 65)], CPU)
    assert tables.block_starts.tolist() == [0, 70, 75, 140, 256]
    assert tables.row_blocks.tolist() == [0] * 70 + [1] * 5 + [2] * 65 + [3] * 116
    assert tables.ranks.tolist() == [16, 0, 8, 0]
    assert tables.adapter_starts.tolist() == [1024, 0, 0, 0]
    assert tables.dropout_keys[0].tolist() == [1, 2, 3]
    assert tables.scales.tolist() == [2.5, 0.0, 2.5, 0.0]
    assert tables.micro_steps.tolist() == [11, 0, 11, 0]
    assert tables.drop_limits.tolist() == [7, 0, 7, 0]


def test_row_tiles_cover_the_rows_of_adapters_and_span_one_block() -> None:
    tables = PassTables.of(SHAPE, [(adapter(), 70), (None, 5), (adapter(), 65)], CPU)
    assert tables.row_tiles[:4].tolist() == [[0, 0], [0, 64], [2, 75], [2, 139]]
    assert set(tables.row_tiles[4:, 0].tolist()) == {-1}


def test_blocks_that_end_with_a_row_of_their_own_tile_fit() -> None:
    shape = PassShape(num_rows=3 * (TILE_ROWS + 1), num_blocks=3, num_layers=1, rank_columns=16)
    tables = PassTables.of(shape, [(adapter(), TILE_ROWS + 1)] * 3, CPU)
    assert (tables.row_tiles[:, 0] >= 0).sum() == 6


@pytest.mark.parametrize("num_rows", [64, 129, 131])
def test_tables_of_any_size_start_at_16_bytes(num_rows: int) -> None:
    """Kernels would be compiled again where the alignment of an argument changes."""
    shape = PassShape(num_rows=num_rows, num_blocks=3, num_layers=3, rank_columns=16)
    tables = PassTables.of(shape, [(adapter(), num_rows)], CPU)
    views = [part for part in vars(tables).values() if isinstance(part, torch.Tensor)]
    assert len(views) == 10
    assert {(part.data_ptr() - tables.buffer.data_ptr()) % 16 for part in views} == {0}
    end = max(part.data_ptr() + part.nbytes for part in views)
    assert end <= tables.buffer.data_ptr() + tables.buffer.nbytes


def test_a_refresh_leaves_nothing_of_the_tables_before() -> None:
    tables = PassTables.of(SHAPE, [(adapter(64, 32, [4, 5, 6]), 200), (adapter(), 56)], CPU)
    addresses = tables.row_blocks.data_ptr(), tables.buffer.data_ptr()
    blocks = [(adapter(128, 8), 3), (None, 9)]
    tables.refresh(blocks)
    assert (tables.row_blocks.data_ptr(), tables.buffer.data_ptr()) == addresses
    assert torch.equal(tables.buffer, PassTables.of(SHAPE, blocks, CPU).buffer)


@pytest.mark.parametrize(
    ("blocks", "message"),
    [
        ([(None, 257)], "a pass of 256 rows cannot hold 257"),
        ([(None, 1)] * 4, "a pass of 4 blocks cannot hold 5"),
        ([(adapter(rank=40), 1)], "a pass of ranks up to 32 cannot hold 40"),
    ],
)
def test_blocks_that_do_not_fit_are_refused(
    blocks: list[tuple[BlockAdapter | None, int]], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        PassTables.of(SHAPE, blocks, CPU)


@pytest.mark.parametrize("num_blocks", [1, 3, 4, 17])
def test_every_table_starts_at_a_multiple_of_16_bytes(num_blocks: int) -> None:
    tables = PassTables.empty(
        PassShape(num_rows=77, num_blocks=num_blocks, num_layers=5, rank_columns=16), CPU
    )
    views = [view for view in vars(tables).values() if isinstance(view, torch.Tensor)]
    assert len(views) == 10
    assert {view.data_ptr() % 16 for view in views} == {tables.buffer.data_ptr() % 16}
    ends = [view.data_ptr() + view.numel() * view.element_size() for view in views]
    assert max(ends) <= tables.buffer.data_ptr() + 8 * tables.buffer.numel()
