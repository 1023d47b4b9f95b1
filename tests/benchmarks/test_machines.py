"""A benchmark's pack takes the path that a sweep takes on this machine, or the one that was asked for."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from benchmarks.peers import peft_processes
from benchmarks.training_steps import machines
from benchmarks.training_steps.random_llama import SHAPES
from lora_runner.certificate.decision import Decision
from lora_runner.certificate.model_sizes import LLAMA_8B
from lora_runner.kernels.frozen_product import use_way, way_for
from tests.benchmarks.cases import CASE

CUDA = torch.device("cuda")


def test_the_sizes_are_those_of_the_certificate_that_is_made_by_default() -> None:
    assert replace(machines.sizes_of(SHAPES["llama-3.1-8b"]), name=LLAMA_8B.name) == LLAMA_8B


def test_only_a_certificate_in_the_cache_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    """Making one would take a minute of the benchmark's."""
    cached: list[Any] = [None, object()]
    decision = Decision(refusal="attention is not invariant")
    monkeypatch.setattr(machines, "cached_certificate", lambda facts, sizes, dtype: cached.pop(0))
    monkeypatch.setattr(machines, "decide_here", lambda sizes, dtype: decision)
    monkeypatch.setattr(machines.DeviceFacts, "of", lambda device: None)
    machines.certified_decision.cache_clear()
    shape = SHAPES["llama-3.1-8b"]
    assert machines.certified_decision(shape, CUDA, torch.bfloat16) is None
    assert machines.certified_decision(shape, CUDA, torch.float16) is decision
    assert machines.certified_decision(shape, torch.device("cpu"), torch.float32) is None
    machines.certified_decision.cache_clear()


def test_the_general_path_multiplies_block_by_block_whatever_was_chosen_before() -> None:
    x, weight = torch.ones(2, 8), torch.ones(8, 8)
    use_way(CASE.device, CASE.dtype, "cublas", library_rows={(8, 8, False): 64})
    try:
        assert way_for(x, weight) == "cublas"
        pack = replace(CASE, fused=False).new_pack()
        assert way_for(x, weight) is None
    finally:
        use_way(CASE.device, CASE.dtype, None)
    assert (pack.path.is_fused, pack.path.reason) == (False, machines.GENERAL.reason)


def test_the_peers_cublas_is_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":0:0")
    monkeypatch.setenv("SOMETHING_ELSE", "1")
    environment = peft_processes._environment()
    assert "CUBLAS_WORKSPACE_CONFIG" not in environment
    assert environment["SOMETHING_ELSE"] == "1"
