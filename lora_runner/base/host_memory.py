"""Memory of a CPU process that is not in tensors, and a setting that makes allocation faster."""

from __future__ import annotations

import ctypes
import sys

LIBRARY_BYTES = int(0.65 * 2**30)
"""Bytes of a worker without a model: Python, torch, transformers, peft, bitsandbytes, Ray."""
GAPS = 0.5
"""Bytes lost in gaps per byte of temporary tensors.

torch asks for memory aligned to 64 bytes. glibc cuts it out of a larger piece, and the remainder goes to
small objects that live longer; so a freed piece rarely fits the next tensor of its size. Measured with glibc
2.36 from the process's peak: 0.47 and 0.54 on SmolLM2-135M (1,584 tokens a step), 0.55 on the demo's base
(3,072 tokens). Without glibc's lists of small pieces it is 0.3 (tcache_count=0 in GLIBC_TUNABLES, M_MXFAST
0); tensors mapped one by one leave no gaps, but each first touch faults in every page.
"""

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # malloc.h


def keep_freed_memory() -> bool:
    """Make glibc reuse the memory of freed tensors instead of returning it to the system.

    By default it maps every large tensor anew, and the first touch faults in each page: elementwise
    operations on 11 MiB tensors took three times as long. Returns whether the setting took effect; other C
    libraries are left alone.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return False
    most = 2**31 - 1  # mallopt takes an int
    return bool(mallopt(_M_MMAP_THRESHOLD, most) and mallopt(_M_TRIM_THRESHOLD, most))
