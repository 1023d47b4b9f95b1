"""The digest of a seat's weights depends on every trained bit and on nothing else."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest
import torch

from lora_runner.adapter_digest import AdapterDigests, digest_of
from lora_runner.config import TrialConfig
from lora_runner.pack.pack import Pack
from lora_runner.pack.seat import Seat
from tests.lora_runner.devices import no_cuda

CONFIG = TrialConfig(learning_rate=1e-2, embedding_learning_rate=1e-3, max_steps=4, lora_r=5, seed=3)


def adapter_digests(seats: Sequence[Seat]) -> list[str]:
    found = AdapterDigests().start(seats)
    if seats[0].lora and next(iter(seats[0].lora)).type == "cpu":
        assert all(digest.done() for digest in found)  # nothing was copied, and the seats may change
    return [digest.result() for digest in found]


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
        content = matrix.cpu().contiguous().numpy().tobytes()
        expected.update(f"{name} {tuple(matrix.shape)}\n".encode() + content)
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


@pytest.mark.parametrize("room", [0, 1 << 30])
def test_seats_that_do_not_fit_on_the_host_at_once_wait(
    pack: Pack, monkeypatch: pytest.MonkeyPatch, room: int
) -> None:
    seats = [pack.new_seat(replace(CONFIG, seed=seed)) for seed in range(6)]
    expected = [adapter_digests([seat])[0] for seat in seats]
    monkeypatch.setattr("lora_runner.adapter_digest.MAX_HOST_BYTES", room)
    running, most = [0], [0]

    def counted(matrices: dict[str, torch.Tensor]) -> str:
        running[0] += 1
        most[0] = max(most[0], running[0])
        time.sleep(0.01)
        running[0] -= 1
        return digest_of(matrices)

    monkeypatch.setattr("lora_runner.adapter_digest.digest_of", counted)
    assert adapter_digests(seats) == expected
    assert len(set(expected)) == len(seats)
    assert most[0] == 1 if room == 0 else most[0] > 1


@pytest.mark.gpu
@no_cuda
def test_a_seat_on_a_gpu_may_change_before_its_digest_is_there(
    pack: Pack, monkeypatch: pytest.MonkeyPatch
) -> None:
    seat = pack.new_seat(CONFIG)
    [before] = adapter_digests([seat])
    goes_on = threading.Event()

    def late(matrices: dict[str, torch.Tensor]) -> str:
        goes_on.wait(30)
        return digest_of(matrices)

    monkeypatch.setattr("lora_runner.adapter_digest.digest_of", late)
    [digest] = AdapterDigests().start([seat])
    for segment in seat.segments.values():
        segment.flat_parameters.fill_(1.0)
    torch.cuda.synchronize()
    goes_on.set()
    assert digest.result() == before
