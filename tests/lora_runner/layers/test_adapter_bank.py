"""An adapter bank gives each seat's matrices and adds each seat's gradients, at any buffer offsets."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from lora_runner.layers.adapter_bank import AdapterBank
from lora_runner.layers.linear import pack_order

RANK, INTO, OUT = 8, 16, 24
CPU = torch.device("cpu")
SIZE = 2 * RANK * (INTO + OUT)
PLACES = {"first": 0, "second": RANK * (INTO + OUT)}


def seats_at(*offsets: int, buffers: int = 1) -> list[Any]:
    """Seats whose adapters begin at `offsets` of one buffer, or of several in turn."""
    generator = torch.Generator().manual_seed(0)
    held = [[torch.randn(max(offsets) + SIZE, generator=generator) for _ in range(2)] for _ in range(buffers)]
    return [
        SimpleNamespace(
            lora={CPU: tuple(buffer[offset : offset + SIZE] for buffer in held[i % buffers])},
            lora_offsets=PLACES,
            padded_rank=RANK,
        )
        for i, offset in enumerate(offsets)
    ]


def matrices(flat: Tensor, name: str) -> tuple[Tensor, Tensor]:
    start = PLACES[name]
    a, b = flat[start : start + RANK * (INTO + OUT)].split([RANK * INTO, RANK * OUT])
    return a.view(RANK, INTO), b.view(OUT, RANK)


LAYOUTS = {
    "alone": ([SIZE], 1),
    "one behind the other": ([0, SIZE, 2 * SIZE], 1),
    "with others between": ([SIZE, 4 * SIZE, 7 * SIZE], 1),
    "with a gap": ([0, SIZE, 3 * SIZE], 1),
    "backwards": ([2 * SIZE, SIZE, 0], 1),
    "the same twice": ([SIZE, SIZE], 1),
    "in two buffers": ([0, SIZE, 2 * SIZE], 2),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("layout", list(LAYOUTS))
def test_every_seat_has_its_own(layout: str, dtype: torch.dtype) -> None:
    offsets, buffers = LAYOUTS[layout]
    seats = seats_at(*offsets, buffers=buffers)
    expected = [seat.lora[CPU][1].clone() for seat in seats]
    before = [seat.lora[CPU][0].clone() for seat in seats]
    bank = AdapterBank(seats, CPU, dtype)
    for name in PLACES:
        a, b = bank.matrices(name, INTO, OUT)
        assert a.dtype == b.dtype == dtype
        da, db = torch.randn(a.shape).to(dtype), torch.randn(b.shape).to(dtype)
        bank.add_gradients(name, INTO, OUT, da, db)
        for i, weights in enumerate(before):
            own_a, own_b = matrices(weights, name)
            assert torch.equal(a[i], own_a.to(dtype))
            assert torch.equal(b[i], own_b.to(dtype))
            for gradient, more in zip(matrices(expected[i], name), (da[i], db[i]), strict=True):
                gradient += more.float()
            if layout == "the same twice":  # then both rows go where one seat is
                for gradient, more in zip(matrices(expected[1 - i], name), (da[i], db[i]), strict=True):
                    gradient += more.float()
    for seat, weights, gradient in zip(seats, before, expected, strict=True):
        assert torch.equal(seat.lora[CPU][0], weights)
        torch.testing.assert_close(seat.lora[CPU][1], gradient)


def test_fp32_weights_at_equal_distances_are_not_copied() -> None:
    seats = seats_at(0, 2 * SIZE, 4 * SIZE)
    a, _ = AdapterBank(seats, CPU, torch.float32).matrices("second", INTO, OUT)
    assert a.untyped_storage().data_ptr() == seats[0].lora[CPU][0].untyped_storage().data_ptr()


def test_seats_of_a_rank_are_in_the_order_of_their_buffers() -> None:
    seats = seats_at(2 * SIZE, 0, SIZE)
    seats[0].padded_rank = 2 * RANK
    assert pack_order([seats[0], None, *seats[1:]]) == [1, 2, 3, 0]
    seats[0].padded_rank = RANK
    assert pack_order([seats[0], None, *seats[1:]]) == [1, 2, 3, 0]
