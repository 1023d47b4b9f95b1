"""What `sweeps plan` says of the path before anything is computed."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from lora_runner.base.load_model import BaseSpec
from lora_runner.certificate.cache import cached_path
from lora_runner.certificate.certificate import Check
from lora_runner.certificate.decision import FUSED_KINDS
from lora_runner.certificate.device_facts import DeviceFacts
from lora_runner.fused.compute_path import ComputePath
from lora_runner.memory.planned_device import PlannedDevice
from sweeps.plan.expected_path import expected_path
from tests.lora_runner.certificate.made import TINY, certificate, check, hopper

BASE = BaseSpec(model="a model")
CUDA = torch.device("cuda", 0)
HERE = PlannedDevice(kind="cuda", name="a GPU", memory=2**36, count=1)
ON_CPU = PlannedDevice(kind="cpu", name="2 CPU cores", memory=2**34, count=1)
UNLESS = "unless the certificate that a worker makes at its start says otherwise"


@pytest.fixture
def on_hopper(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A planning machine with a GPU of capability 9 and an empty cache."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    facts = hopper()
    monkeypatch.setattr(DeviceFacts, "of", lambda device: facts)


def kept(*checks: Check) -> None:
    facts = DeviceFacts.of(CUDA)
    certificate(*checks, device=facts).write(cached_path(facts, TINY, "bfloat16"))


def test_a_machine_without_a_gpu_says_both() -> None:
    (said,) = expected_path(BASE, TINY, ON_CPU, torch.float32, None)
    assert said.startswith(
        "general on this machine, whose device is cpu; on a GPU fused from compute capability 9"
    )
    assert said.endswith(UNLESS)


def test_before_there_is_a_certificate_the_fused_path_is_expected(on_hopper: None) -> None:
    (said,) = expected_path(BASE, TINY, HERE, torch.bfloat16, None)
    assert said.startswith("fused, if every part of the model has a fused form")
    assert UNLESS in said
    assert expected_path(BASE, TINY, HERE, torch.float32, None)[0].startswith("general: the compute dtype is")


def test_a_certificate_of_this_machine_is_told(on_hopper: None) -> None:
    kinds = [check(kind, "triton") for kind in FUSED_KINDS]
    kept(*kinds, check("products", "cublas :0:0"), check("products", "triton", milliseconds=2.0))
    (said,) = expected_path(BASE, TINY, HERE, torch.bfloat16, None)
    assert "frozen products by cublas :0:0 (the certificate of 2026-11-28" in said
    kept(*kinds, check("products", "triton"), check("norms", "triton", "1 of 8 elements differ"))
    (said,) = expected_path(BASE, TINY, HERE, torch.bfloat16, None)
    assert said.startswith("general: norms by triton: not invariant on this machine")


def test_a_base_over_several_gpus_takes_the_general_path() -> None:
    spread = BaseSpec(model="a model", device_map="auto")
    assert expected_path(spread, TINY, HERE, torch.bfloat16, None)[0].startswith(
        "general if the base is spread over"
    )


def test_parts_are_told_and_a_part_without_a_fused_form_before_any_worker_starts(on_hopper: None) -> None:
    parts = {"linear layers": "14 in 8 products", "rotary embeddings: ": "none"}
    first, *lines = expected_path(BASE, TINY, HERE, torch.bfloat16, ComputePath(True, "", parts))
    assert first.startswith("fused, unless the certificate")
    assert lines[:-1] == [f"{part}: {how}" for part, how in parts.items()]
    assert "a worker checks those of all layers" in lines[-1]
    said = expected_path(BASE, TINY, HERE, torch.bfloat16, ComputePath(False, "h.0 is called twice", parts))
    assert said == ["general: h.0 is called twice"]
    kept(check("norms", "triton", "1 of 8 elements differ"))
    (said_by_it,) = expected_path(BASE, TINY, HERE, torch.bfloat16, ComputePath(True, "", parts))
    assert said_by_it.startswith("general: ")
