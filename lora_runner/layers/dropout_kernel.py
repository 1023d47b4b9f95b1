"""The masks of dropout.py in Triton: NumPy's Philox 4x64-10 stream, bit for bit."""

# mypy: disable-error-code="import-untyped, untyped-decorator, no-untyped-def"
from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from lora_runner.kernels.philox import ELEMENTS, philox_words

COUNTERS = 128
"""Per program."""


# Not specialised: a key of 1 would become a constant, and new keys might be compiled again.
@triton.jit(do_not_specialize=["key0", "key1", "limit", "num_counters"])
def keep_kernel(out, key0, key1, limit, num_counters, COUNTERS: tl.constexpr):
    """Write 16 bytes of 0 or 1 per counter, as two 64-bit words; out (num_counters, 2) int64."""
    index = tl.program_id(0) * COUNTERS + tl.arange(0, COUNTERS)
    w0, w1, w2, w3 = philox_words(index, key0, key1)
    inside = index < num_counters
    tl.store(out + 2 * index, _keeps(w0, limit) | (_keeps(w1, limit) << 32), mask=inside)
    tl.store(out + 2 * index + 1, _keeps(w2, limit) | (_keeps(w3, limit) << 32), mask=inside)


@triton.jit
def _keeps(word, limit):
    """Four bytes of 0 or 1: whether each 16 bits of `word`, lowest first, reach the limit."""
    kept = ((word & 0xFFFF).to(tl.int64) >= limit).to(tl.int64)
    kept |= (((word >> 16) & 0xFFFF).to(tl.int64) >= limit).to(tl.int64) << 8
    kept |= (((word >> 32) & 0xFFFF).to(tl.int64) >= limit).to(tl.int64) << 16
    kept |= ((word >> 48).to(tl.int64) >= limit).to(tl.int64) << 24
    return kept


def philox_keep_mask(
    shape: tuple[int, int], limit: int, key: tuple[int, int], device: torch.device
) -> Tensor:
    """`dropout.keep_mask` on the device; the host does not wait."""
    count = shape[0] * shape[1]
    counters = -(-count // ELEMENTS.value)
    out = torch.empty(counters, 2, dtype=torch.int64, device=device)
    with torch.cuda.device_of(out):
        keep_kernel[(triton.cdiv(counters, COUNTERS),)](out, *key, limit, counters, COUNTERS=COUNTERS)
    return out.view(torch.bool).flatten()[:count].view(shape)
