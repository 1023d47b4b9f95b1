"""Flat fp32 buffers that hold the trained state of all seats of a pack on one device.

Parameters, gradients and both moments of a (seat, group) lie in one segment, at the same place in four
buffers, so that one launch clips and updates a whole pack. Segments start at multiples of BLOCK: a block of
the update never spans two of them.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

BLOCK = 1024
"""Elements; the unit in which segments are laid out and the update's kernels work."""


@dataclass
class FlatBuffers:
    """Four buffers of one length, a multiple of BLOCK, on one device."""

    parameters: Tensor  # (N,) fp32, as are the others
    gradients: Tensor
    exp_avg: Tensor
    exp_avg_sq: Tensor
