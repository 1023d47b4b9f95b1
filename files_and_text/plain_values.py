"""Values as JSON and YAML can hold them: plain types, no NaN."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def plain(value: Any) -> Any:
    """`value` in builtins only: numpy's as Python's, tuples as lists, NaN and infinities as None.

    JSON has no form for a non-finite number, and 0.0 would be wrong. Other objects raise TypeError.
    """
    if value is None or isinstance(value, bool) or type(value) in (int, str):
        return value
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(item) for item in (sorted(value) if isinstance(value, set | frozenset) else value)]
    if isinstance(value, float):  # numpy.float64 is one too
        return float(value) if math.isfinite(value) else None
    if isinstance(value, int):
        return int(value)
    if isinstance(value, str | Path):
        return str(value)
    if hasattr(value, "tolist"):  # numpy scalars and arrays, without importing numpy
        return plain(value.tolist())
    raise TypeError(
        f"a result holds numbers, text, lists and mappings; got {type(value).__name__}: {value!r}"
    )


def finite(value: object) -> float | None:
    """`value` as a finite float, or None for everything else (text, None, NaN, infinities, booleans)."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if math.isfinite(value) else None
