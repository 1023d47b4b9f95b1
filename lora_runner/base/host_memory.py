"""What a process on a CPU takes beside its tensors, and keeping freed memory in it."""

from __future__ import annotations

import ctypes
import sys

LIBRARY_BYTES = int(0.6 * 2**30)
"""Bytes of a worker before it loads a model: Python, torch, transformers, peft, bitsandbytes, Ray."""
GAPS = 0.5
"""Bytes of gaps for each byte of tensors that come and go.

torch asks for memory aligned to 64 bytes. glibc cuts such a piece out of a larger one, and what it cuts off
is handed out to small objects that live longer; so a freed piece rarely serves the next tensor of its size.
Found with glibc 2.36, from the process's peak: 0.47 and 0.54 on SmolLM2-135M (1,584 tokens a step), 0.55 on
the demo's base (3,072 tokens). Without glibc's lists of small pieces it is 0.3 (tcache_count=0 among its
GLIBC_TUNABLES, M_MXFAST 0); tensors that are mapped one by one leave none, and fault in every page anew.
"""

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # malloc.h


def keep_freed_memory() -> bool:
    """Make the C library hand freed tensors out again rather than return them to the system.

    By default glibc maps every large tensor afresh, and its first touch faults in each page: elementwise
    operations on 11 MiB tensors took three times as long. Returns whether the C library took it; others than
    glibc keep their own ways.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return False
    most = 2**31 - 1  # mallopt takes an int
    return bool(mallopt(_M_MMAP_THRESHOLD, most) and mallopt(_M_TRIM_THRESHOLD, most))
