"""Values of numpy and Python as JSON can hold them."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from files_and_text.plain_values import plain


def test_plain_gives_builtins_only():
    value = plain(
        {
            "f": np.float64(1e-4),
            "i": np.int64(3),
            "b": np.bool_(True),
            "a": np.array([1.5, np.nan]),
            "t": (1, "x"),
            "inf": float("inf"),
            "p": Path("a/b"),
        }
    )
    assert value == {"f": 1e-4, "i": 3, "b": True, "a": [1.5, None], "t": [1, "x"], "inf": None, "p": "a/b"}
    assert {key: type(item) for key, item in value.items() if key in "fib"} == {
        "f": float,
        "i": int,
        "b": bool,
    }
