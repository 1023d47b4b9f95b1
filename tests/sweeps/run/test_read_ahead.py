"""A base's weights are read while the driver plans, where a worker on this machine will load them."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from sweeps.run.run_sweep import run_sweep
from sweeps.view.live_view import LiveView


@pytest.mark.parametrize(("address", "expected"), [(None, [("base", "v2")]), ("auto", [])])
def test_it_begins_before_the_plan(
    monkeypatch: pytest.MonkeyPatch, address: str | None, expected: list[Any]
) -> None:
    read: list[Any] = []
    monkeypatch.setattr("sweeps.run.run_sweep.read_ahead", lambda *model: read.append(model))
    config: Any = SimpleNamespace(
        tracking=SimpleNamespace(to=()), model=SimpleNamespace(name="base", revision="v2")
    )

    def plan() -> Any:
        assert read == expected
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run_sweep(config, plan, address=address, view=LiveView(Console(quiet=True)))
