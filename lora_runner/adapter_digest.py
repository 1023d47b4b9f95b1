"""Digests of what seats have trained: the same for the same bits, whatever the pack and its padding."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
from torch import Tensor

from lora_runner.pack.seat import Seat

MAX_COPIES = 4
"""Seats whose weights are on the host at a time."""


def adapter_digests(seats: Sequence[Seat]) -> list[str]:
    """SHA-256 of each seat's trained matrices, in hex: names in order, each with its shape and fp32 bytes."""
    found: list[Future[str]] = []
    with ThreadPoolExecutor(MAX_COPIES) as pool:
        for seat in seats:
            if len(found) >= MAX_COPIES:
                found[-MAX_COPIES].result()
            found.append(pool.submit(digest_of, _on_host(seat)))
    return [digest.result() for digest in found]


def digest_of(matrices: dict[str, Tensor]) -> str:
    """The digest of trained matrices by name, fp32 on the host."""
    digest = hashlib.sha256()
    for name in sorted(matrices):
        values = np.ascontiguousarray(matrices[name].numpy())
        digest.update(f"{name} {values.shape}\n".encode())
        digest.update(values.view(np.uint8).data)
    return digest.hexdigest()


def _on_host(seat: Seat) -> dict[str, Tensor]:
    """The trained matrices without padding; one copy for each of the seat's segments."""
    matrices = {}
    for segment in seat.segments.values():
        flat = segment.flat_parameters.cpu()
        for name, shape in segment.shapes.items():
            matrix = flat.narrow(0, segment.offsets[name], math.prod(shape)).view(shape)
            matrices[name] = seat.without_padding(name, matrix)
    return matrices
