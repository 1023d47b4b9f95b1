"""Values as JSON and YAML can hold them, and as a person reads them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def plain(value: Any) -> Any:
    """`value` in builtins only: numpy scalars and arrays unpacked, tuples as lists, NaN and infinities as
    None.

    A non-finite number has no JSON form, and 0.0 in its place would be a lie. Other objects are a TypeError.
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


def number(value: float | None, digits: int = 3) -> str:
    """A number as a person writes a learning rate: 3 significant digits, 2e-4 rather than 0.0002."""
    if value is None:
        return "unknown"
    if value == 0:
        return "0"
    if 0.01 <= abs(value) < 100_000:
        return f"{value:.{digits}g}" if abs(value) < 1000 else f"{value:.0f}"
    mantissa, exponent = f"{value:.{digits - 1}e}".split("e")
    return f"{mantissa.rstrip('0').rstrip('.') if '.' in mantissa else mantissa}e{int(exponent)}"


def loss(value: float | None) -> str:
    """A loss in nats per token with four decimals, as all tables here print it."""
    return "unknown" if value is None else f"{value:.4f}"


def plural(count: int, noun: str) -> str:
    """`1 trial`, `2 trials`."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def parameters(count: float) -> str:
    """A number of parameters as people say it: 8.03B, 5.05M."""
    for unit, factor in (("T", 1e12), ("B", 1e9), ("M", 1e6), ("K", 1e3)):
        if count >= factor:
            return f"{number(count / factor)}{unit}"
    return number(count)
