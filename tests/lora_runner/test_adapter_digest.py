"""The digest of a seat's weights depends on every trained bit and on nothing else."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from lora_runner.adapter_digest import MAX_COPIES, adapter_digests, digest_of
from lora_runner.config import TrialConfig
from lora_runner.pack.pack import Pack

CONFIG = TrialConfig(learning_rate=1e-2, embedding_learning_rate=1e-3, max_steps=4, lora_r=5, seed=3)


@pytest.fixture(scope="module")
def pack(new_pack: Callable[..., Pack]) -> Pack:
    return new_pack()


def test_it_is_that_of_the_trained_matrices_alone(pack: Pack) -> None:
    first = pack.new_seat(replace(CONFIG, seed=9))
    seat = pack.new_seat(CONFIG)
    [alone] = adapter_digests([seat])
    expected = hashlib.sha256()
    for name in sorted(seat.parameters):
        matrix = seat.parameters[name]
        expected.update(f"{name} {tuple(matrix.shape)}\n".encode() + matrix.contiguous().numpy().tobytes())
    assert alone == expected.hexdigest()
    # Padding and neighbours do not count, nor does the place in the buffers.
    for segment in seat.segments.values():
        for name, shape in segment.shapes.items():
            if name.endswith("lora_A"):
                assert shape[0] == 8
                segment.parameters[name][5:].fill_(7.0)
    del first
    pack.release_memory()
    assert adapter_digests([pack.new_seat(replace(CONFIG, seed=1)), seat])[1] == alone


def test_every_bit_counts(pack: Pack) -> None:
    seat = pack.new_seat(CONFIG)
    [before] = adapter_digests([seat])
    for name in (next(iter(seat.parameters)), list(seat.parameters)[-1]):
        entry = seat.parameters[name].view(torch.int32)[-1, -1]
        entry.bitwise_xor_(1)
        assert adapter_digests([seat]) != [before]
        entry.bitwise_xor_(1)
    assert adapter_digests([seat]) == [before]
    assert digest_of({"a": torch.zeros(2, 3)}) != digest_of({"a": torch.zeros(3, 2)})
    assert digest_of({"a": torch.zeros(2)}) != digest_of({"b": torch.zeros(2)})
    assert digest_of({"a": torch.tensor([0.0])}) != digest_of({"a": torch.tensor([-0.0])})


def test_more_seats_than_are_copied_at_a_time(pack: Pack) -> None:
    seats = [pack.new_seat(replace(CONFIG, seed=seed)) for seed in range(MAX_COPIES + 3)]
    together = adapter_digests(seats)
    assert together == [adapter_digests([seat])[0] for seat in seats]
    assert len(set(together)) == len(seats)
