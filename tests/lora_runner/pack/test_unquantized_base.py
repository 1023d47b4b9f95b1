"""The untouched base without quantization."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from lora_runner.base.load_model import BaseSpec, load_base
from lora_runner.data import DataBundle
from lora_runner.errors import ModelError
from lora_runner.pack import unquantized_base
from lora_runner.pack.pack import Pack
from lora_runner.pack.unquantized_base import unquantized_loss
from lora_runner.session import Session


def test_its_loss_is_that_of_the_plain_model_and_changes_nothing_for_trials(
    tiny_model: Callable[..., Path],
    bundle: DataBundle,
    plain_nll: Callable[..., float],
    new_pack: Callable[..., Pack],
    new_session: Callable[..., Session],
) -> None:
    folder = tiny_model("llama")
    before = new_session().base_eval_loss
    found = unquantized_loss(BaseSpec(model=str(folder)), bundle.eval, 4)
    plain = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    assert found == pytest.approx(plain_nll(plain, bundle.eval), rel=1e-6)
    assert found != pytest.approx(before, rel=1e-6)
    assert new_session(on=new_pack()).base_eval_loss == before


def test_what_does_not_fit_or_cannot_be_loaded_says_why(
    tiny_model: Callable[..., Path], bundle: DataBundle, tmp_path: Path
) -> None:
    spec = BaseSpec(model=str(tiny_model("llama")))
    with pytest.raises(ModelError, match=r"it takes .* GiB in float32, and .* are free"):
        unquantized_loss(spec, bundle.eval, 4, share=1e-9)
    damaged = tmp_path / "damaged"
    damaged.mkdir()
    for file in tiny_model("llama").iterdir():
        content = file.read_bytes()
        (damaged / file.name).write_bytes(content[:-64] if file.suffix == ".safetensors" else content)
    with pytest.raises(ModelError, match="are damaged"):
        unquantized_loss(BaseSpec(model=str(damaged)), bundle.eval, 4)


def test_its_weights_are_freed_before_the_base_in_4_bits_is_loaded(
    tiny_model: Callable[..., Path], bundle: DataBundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded: list[weakref.ref[Any]] = []

    def load(*arguments: Any) -> Any:
        base = load_base(*arguments)
        loaded.extend(map(weakref.ref, base.model.parameters()))
        return base

    monkeypatch.setattr(unquantized_base, "load_base", load)
    gc.disable()  # it would hide by chance what is not freed
    try:
        unquantized_loss(BaseSpec(model=str(tiny_model("llama"))), bundle.eval, 4)
        alive = [weight for weight in loaded if weight() is not None]
    finally:
        gc.enable()
    assert len(loaded) > 10
    assert alive == []
