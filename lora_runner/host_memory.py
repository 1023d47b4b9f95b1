"""Keeping freed memory in the process, for training on a CPU."""

from __future__ import annotations

import ctypes
import sys

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
