"""How workers compute is kept in the study and beside the run, and different paths are noted."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from lora_runner.certificate.certificate import Certificate
from lora_runner.protocol import ComputeRecord
from sweeps.keeper.keeper import Keeper
from sweeps.study.compute_paths import COMPUTE_PATHS
from sweeps.study.status import as_plain
from sweeps.view.screen import Screen
from tests.lora_runner.certificate.made import certificate, check, hopper

MADE = certificate(check("norms", "triton", "1 of 8 elements differ"), device=hopper())
GENERAL = ComputeRecord(
    device="NVIDIA H200",
    path="general",
    details=("general: norms differ",),
    notes=("the fused path is not taken: norms differ",),
    certificate_name="certificate-nvidia-h200.json",
    certificate=MADE.to_dict(),
)
FUSED = replace(GENERAL, path="fused, frozen products by triton", notes=())


def test_path_and_certificate_are_kept_once_and_what_was_not_taken_is_said(
    tmp_path: Path, new_database: Callable[[str], str], study_spec: Any
) -> None:
    plan = study_spec(tmp_path / "run", trials=2)
    keeper = Keeper(plan, new_database("study"))
    for worker in (0, 1, 0):
        assert not keeper.register(worker, 3.0, None, None, GENERAL).stop
    (kept,) = keeper.study.user_attrs[COMPUTE_PATHS]
    assert (kept["path"], kept["device"]) == ("general", "NVIDIA H200")
    assert Certificate.from_dict(kept["certificate"]) == MADE
    assert Certificate.read(tmp_path / "run" / "certificate-nvidia-h200.json") == MADE
    events = keeper.status().events
    assert "worker 0: the fused path is not taken: norms differ" in events
    assert not any("mixes" in event for event in events)
    status = keeper.status()
    assert "certificate" not in json.dumps(as_plain(status)["compute_paths"])
    lines = [line.plain for line in Screen().lines(status, width=100, height=40)]
    assert "! the fused path is not taken: norms differ" in lines
    keeper.leave()


def test_two_paths_in_one_study_are_noted_also_after_a_restart(
    tmp_path: Path, new_database: Callable[[str], str], study_spec: Any
) -> None:
    plan, url = study_spec(tmp_path / "run", trials=2), new_database("study")
    keeper = Keeper(plan, url)
    keeper.register(0, 3.0, None, None, FUSED)
    keeper.leave()
    keeper = Keeper(plan, url)
    keeper.register(1, 3.0, None, None, GENERAL)
    (said,) = [event for event in keeper.status().events if "computes by" in event]
    assert said.startswith(
        "worker 1: computes by general on NVIDIA H200, others by fused, frozen products by triton on NVIDIA "
        "H200: numbers of one trial are exact within a worker, but "
    )
    assert [path["path"] for path in keeper.status().compute_paths] == [FUSED.path, "general"]
    keeper.leave()


def test_another_device_is_another_path(
    tmp_path: Path, new_database: Callable[[str], str], study_spec: Any
) -> None:
    keeper = Keeper(study_spec(tmp_path / "run", trials=2), new_database("study"))
    keeper.register(0, 3.0, None, None, FUSED)
    keeper.register(1, 3.0, None, None, replace(FUSED, device="NVIDIA B200"))
    assert any("mixes their rounding" in event for event in keeper.status().events)
    keeper.leave()


def test_a_worker_without_a_certificate_leaves_no_file(
    tmp_path: Path, new_database: Callable[[str], str], study_spec: Any
) -> None:
    keeper = Keeper(study_spec(tmp_path / "run", trials=2), new_database("study"))
    keeper.register(
        0, 3.0, None, None, ComputeRecord(device="CPU", path="general", details=("general: a CPU",))
    )
    assert not list((tmp_path / "run").glob("certificate*"))
    assert keeper.status().compute_paths[0]["details"] == ["general: a CPU"]
    keeper.leave()
