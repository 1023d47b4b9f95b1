"""How Ray is started: quiet, unless asked to say everything."""

from __future__ import annotations

import logging
from typing import Any

import pytest
import ray

from sweeps.fleet.ray_start import start_ray


@pytest.mark.parametrize(("verbose", "shown", "level"), [("", False, "ERROR"), ("1", True, "INFO")])
def test_what_ray_prints_is_shown_on_request_alone(
    monkeypatch: pytest.MonkeyPatch, verbose: str, shown: bool, level: str
) -> None:
    given: dict[str, Any] = {}
    tune = logging.getLogger("ray.tune")
    monkeypatch.setattr(tune, "level", logging.NOTSET)
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", lambda **options: given.update(options))
    monkeypatch.setenv("SWEEPS_VERBOSE", verbose)
    start_ray()
    assert (given["log_to_driver"], given["logging_level"]) == (shown, level)
    assert (tune.level == logging.CRITICAL) is not shown
