"""Liger's kernels are used where they can run, except those that would mix trials."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaForCausalLM
from transformers.models.llama import modeling_llama

from lora_runner.base import liger
from lora_runner.base.liger import use_liger


@pytest.fixture
def model(tiny_model: Callable[..., Path]) -> LlamaForCausalLM:
    return AutoModelForCausalLM.from_pretrained(tiny_model("llama"))


def home(function: object) -> str:
    return str(getattr(getattr(function, "__func__", function), "__module__", ""))


def test_a_cpu_keeps_the_models_own_layers(model: LlamaForCausalLM) -> None:
    assert "need CUDA, the device is cpu" in use_liger(model, torch.device("cpu"))
    assert "liger" not in home(model.model.norm.forward)


def test_without_the_package_it_says_so(model: LlamaForCausalLM, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(liger, "is_liger_kernel_available", lambda: False)
    assert "not installed" in use_liger(model, torch.device("cuda"))
    assert "liger" not in home(model.model.norm.forward)


def test_norms_activations_and_rotary_embeddings_become_ligers_and_the_loss_does_not(
    model: LlamaForCausalLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Liger also replaces classes and functions of transformers' module; this restores them.
    for name, value in list(vars(modeling_llama).items()):
        monkeypatch.setattr(modeling_llama, name, value)
    forward = model.forward.__func__
    assert "Liger" in use_liger(model, torch.device("cuda"))
    layer = model.model.layers[0]
    for patched in (layer.input_layernorm.forward, model.model.norm.forward, layer.mlp.forward):
        assert home(patched).startswith("liger_kernel")
    assert home(modeling_llama.apply_rotary_pos_emb).startswith("liger_kernel")
    assert model.forward.__func__ is forward
    norms = [module for module in model.modules() if hasattr(module, "row_mode")]
    assert len(norms) == 5
    assert all(norm.row_mode for norm in norms)  # one kernel, however many rows there are
    monkeypatch.undo()
    again = AutoModelForCausalLM.from_config(model.config)
    assert "liger" not in home(again.model.norm.forward)
