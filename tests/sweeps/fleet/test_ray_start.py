"""How Ray is started: quiet, unless asked to say everything."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from typing import Any

import pytest
import ray
from ray._private import services

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


def test_a_signal_to_the_whole_process_group_does_not_reach_rays_daemons(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sessions: list[int] = []
    popen = services.ConsolePopen

    def init(**_: Any) -> None:  # as Ray starts each daemon
        command = [sys.executable, "-c", "import sys; sys.stdin.read()"]
        with services.ConsolePopen(command, stdin=subprocess.PIPE) as daemon:
            sessions.append(os.getsid(daemon.pid))

    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", init)
    start_ray()
    assert sessions
    assert sessions[0] != os.getsid(0)
    assert services.ConsolePopen is popen
