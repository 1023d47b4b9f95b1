"""Digests of what seats have trained: the same for the same bits, whatever the pack and its padding."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait

import numpy as np
from torch import Tensor

from lora_runner.pack.seat import Seat

NUM_THREADS = 8
MAX_HOST_BYTES = 2 << 30
"""Copies of a GPU's weights that are on the host at a time, of more than one seat."""


class AdapterDigests:
    """Computes digests in threads, beside what the device is given to do next."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(NUM_THREADS, "adapter-digest")

    def start(self, seats: Sequence[Seat]) -> list[Future[str]]:
        """SHA-256 of each seat's trained matrices, in hex: names in order, with shapes and fp32 bytes.

        A GPU's weights have been copied when this returns, so the seats may be trained and moved. On a CPU,
        whose memory is counted, nothing is copied, and this returns when all digests are there.
        """
        found: list[Future[str]] = []
        sizes: list[int] = []
        for seat in seats:
            size = sum(segment.numel * 4 for segment in seat.segments.values())
            while sizes and sum(sizes) + size > MAX_HOST_BYTES:
                found[-len(sizes)].result()
                sizes.pop(0)
            sizes.append(size)
            found.append(self._pool.submit(digest_of, _on_host(seat)))
        if any(device.type == "cpu" for seat in seats for _, device in seat.segments):
            wait(found)
        return found


def digest_of(matrices: dict[str, Tensor]) -> str:
    """The digest of trained matrices by name, fp32 on the host."""
    digest = hashlib.sha256()
    for name in sorted(matrices):
        values = np.ascontiguousarray(matrices[name].numpy())
        digest.update(f"{name} {values.shape}\n".encode())
        digest.update(values.view(np.uint8).data)
    return digest.hexdigest()


def _on_host(seat: Seat) -> dict[str, Tensor]:
    """The trained matrices without padding; one copy for each of the seat's segments on a GPU."""
    matrices = {}
    for segment in seat.segments.values():
        flat = segment.flat_parameters.cpu()
        for name, shape in segment.shapes.items():
            matrix = flat.narrow(0, segment.offsets[name], math.prod(shape)).view(shape)
            matrices[name] = seat.without_padding(name, matrix)
    return matrices
