"""Weights are looked at before anything is loaded or started."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from lora_runner.errors import ModelError
from lora_runner.models import BaseSpec, check_weights


def test_weights_cut_short_are_refused_by_their_header(
    tiny_model: Callable[..., Path], tmp_path: Path
) -> None:
    folder = tmp_path / "base"
    shutil.copytree(tiny_model("llama"), folder)
    check_weights(BaseSpec(model=str(folder)))
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(ModelError, match=r"model\.safetensors' are damaged"):
        check_weights(BaseSpec(model=str(folder)))
