"""Checks in child processes: one that dies or hangs fails its way, and the others are checked."""

from __future__ import annotations

import io
import json
from dataclasses import asdict
from pathlib import Path

import pytest
import torch

from lora_runner.certificate.certificate import Check
from lora_runner.certificate.checks import check_processes
from lora_runner.certificate.ways.registry import WAYS, Way, ways_for
from tests.lora_runner.certificate.made import CPU, TINY, hopper

CHILD = """
import json, os, sys, time
request = json.load(sys.stdin)
for number, (kind, way) in enumerate(request["ways"]):
    print(json.dumps({"way": number}), flush=True)
    if way == "liger":
        print("an illegal memory access was encountered", file=sys.stderr)
        sys.exit(3)
    if way == "triton" and kind == "rotary":
        time.sleep(600)
    setting = os.environ.get("CUBLAS_WORKSPACE_CONFIG", "default")
    check = {"kind": kind, "way": way, "case": f"{setting} {os.getpid()}", "comparisons": 1}
    print(json.dumps({"check": check}), flush=True)
print(json.dumps({"done": True}), flush=True)
"""


def checked(ways: list[Way]) -> list[Check]:
    return list(check_processes.check_in_processes(ways, CPU, torch.bfloat16, TINY, 3, lambda: None))


@pytest.fixture(autouse=True)
def child(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A child that computes nothing, dies for Liger's kernels and hangs for one of the fused path's."""
    script = tmp_path / "child.py"
    script.write_text(CHILD, encoding="utf-8")
    monkeypatch.setattr(check_processes, "COMMAND", (str(script),))
    monkeypatch.setattr(check_processes, "ALIVE_SECONDS", 0.05)
    monkeypatch.setattr(check_processes, "SILENCE_SECONDS", 1.0)
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", "of the user")


def test_a_way_that_ends_or_hangs_its_process_fails_and_the_others_are_checked() -> None:
    ways = ways_for(hopper(), torch.bfloat16)
    found = {(check.kind, check.way): check for check in checked(ways)}
    assert set(found) == {(way.kind, way.name) for way in ways}
    failed = {key for key, check in found.items() if check.difference is not None}
    assert failed == {("norms", "liger"), ("rotary", "liger"), ("activations", "liger"), ("rotary", "triton")}
    assert found["norms", "liger"].difference == (
        "the process that computed it ended with code 3: an illegal memory access was encountered"
    )
    assert found["rotary", "triton"].difference == "the process that computed it was not heard of any more"


def test_each_setting_of_cublas_has_a_process_of_its_own_without_those_of_the_user() -> None:
    ways = [way for way in WAYS if way.kind == "products"]
    cases = {check.way: check.case.split() for check in checked(ways)}
    assert {way: setting for way, (setting, _) in cases.items()} == {
        "grouped": "default",
        "triton": "default",
        "triton whole tiles": "default",
        "cublas": "default",
        "cublas :0:0": ":0:0",
        "cublas :16:8": ":16:8",
    }
    assert len({process for _, process in cases.values()}) == 3


def test_the_child_checks_what_it_is_asked_for() -> None:
    request = {
        "device": "cpu",
        "dtype": "float32",
        "sizes": asdict(TINY),
        "seed": 3,
        "ways": [["update", "fused"], ["norms", "transformers"]],
    }
    said = io.StringIO()
    check_processes._child(io.StringIO(json.dumps(request)), said)
    messages = [json.loads(line) for line in said.getvalue().splitlines()]
    assert [message.get("way") for message in messages if "way" in message] == [0, 1]
    checks = [Check(**message["check"]) for message in messages if "check" in message]
    assert [(check.kind, check.way, check.is_invariant) for check in checks] == [
        ("update", "fused", True),
        ("norms", "transformers", True),
    ]
    assert messages[-1] == {"done": True}
