"""An error of Ray itself ends the sweep with what to do; other errors stay what they are."""

from __future__ import annotations

from typing import Any

import pytest
import ray.exceptions
from rich.console import Console

from sweeps.errors import SweepFailed
from sweeps.run.run_end import CONTINUE
from sweeps.run.run_on_ray import run_on_ray
from sweeps.view.live_view import LiveView


def run_with(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    def start_ray(address: str | None) -> None:
        raise error

    monkeypatch.setattr("sweeps.run.run_on_ray.start_ray", start_ray)
    nothing: Any = None  # Ray is started before the sweep is looked at
    run_on_ray(nothing, nothing, None, address=None, view=LiveView(Console(quiet=True)))


def test_an_error_of_ray_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    error = ray.exceptions.RaySystemError("the node is gone\nand more")
    with pytest.raises(SweepFailed) as raised:
        run_with(error, monkeypatch)
    first, advice = str(raised.value).splitlines()
    assert first.startswith("Ray failed during the sweep (RaySystemError: ")
    assert "the node is gone" in first
    assert advice == CONTINUE


def test_another_error_is_not_rays(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ZeroDivisionError):
        run_with(ZeroDivisionError(), monkeypatch)
