"""Keepers whose trials are frozen."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from sweeps.keeper.keeper import Keeper


@pytest.fixture
def freezing(make_keeper: Callable[..., Keeper]) -> Callable[..., Keeper]:
    """`make_keeper` with curve_gp."""

    def make(**options: Any) -> Keeper:
        return make_keeper(**{"sampler": "curve_gp", "startup_trials": 4, "trials": 16, **options})

    return make
