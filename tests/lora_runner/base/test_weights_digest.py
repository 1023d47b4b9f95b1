"""The digest of a base's weights, computed before anything is loaded."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from lora_runner.base.load_model import BaseSpec, check_weights
from lora_runner.base.weights_digest import weight_files, weights_digest
from lora_runner.errors import ModelError


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


# --- a digest of them ---------------------------------------------------------------------------------


@pytest.fixture
def folder(tiny_model: Callable[..., Path], tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_model("llama"), tmp_path / "base"))


def test_the_digest_is_that_of_the_weights_not_of_their_files(folder: Path, tmp_path: Path) -> None:
    known = weights_digest(folder)
    (folder / "README.md").write_text("something")
    (folder / "tokenizer_config.json").unlink()
    assert weights_digest(folder) == known
    model = AutoModelForCausalLM.from_pretrained(folder)
    model.save_pretrained(tmp_path / "parts", max_shard_size="50KB")
    assert len(weight_files(tmp_path / "parts")) > 2
    assert weights_digest(tmp_path / "parts") == known
    # transformers does not read other files either.
    save_file({"x": torch.ones(3)}, folder / "consolidated.safetensors")
    assert weights_digest(folder) == known


def test_any_change_of_a_small_tensor_and_of_the_configuration_shows(folder: Path) -> None:
    known, file = weights_digest(folder), folder / "model.safetensors"
    tensors = load_file(file)
    for name, tensor in tensors.items():
        changed = tensor.clone()
        changed.view(-1)[-1] += 1e-3
        save_file(tensors | {name: changed}, file, metadata={"format": "pt"})
        assert weights_digest(folder) != known, name
    save_file(tensors, file, metadata={"format": "pt"})
    assert weights_digest(folder) == known
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"transformers_version": "4.0"}))
    assert weights_digest(folder) == known
    (folder / "config.json").write_text(json.dumps(config | {"rms_norm_eps": 1e-3}))
    assert weights_digest(folder) != known


def test_a_large_tensor_is_read_in_pieces_from_its_first_byte_to_its_last(tmp_path: Path) -> None:
    def digest(tensor: torch.Tensor) -> str:
        save_file({"large": tensor}, tmp_path / "model.safetensors")
        return weights_digest(tmp_path)

    large = torch.zeros(1 << 20)  # 4 MiB
    known = digest(large)
    for place in (0, 1023, large.numel() - 1):
        changed = large.clone()
        changed[place] = 1.0
        assert digest(changed) != known
    assert digest(large + 1e-6) != known
    between = large.clone()
    between[2000] = 1.0
    assert digest(between) == known  # the documented limit


def test_missing_and_damaged_files_are_named(folder: Path, tmp_path: Path) -> None:
    AutoModelForCausalLM.from_pretrained(folder).save_pretrained(tmp_path / "parts", max_shard_size="50KB")
    last = weight_files(tmp_path / "parts")[-1]
    last.write_bytes(last.read_bytes()[:-5])
    with pytest.raises(ModelError, match=rf"{last.name}' are damaged: it ends before its last tensor"):
        weights_digest(tmp_path / "parts")
    last.unlink()
    with pytest.raises(ModelError, match=rf"{last.name}' do not exist"):
        weights_digest(tmp_path / "parts")


def test_codes_that_no_configuration_explains_are_no_weights(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    name = "model.layers.0.mlp.up_proj.weight"
    for codes, type_ in ((torch.int8, "I8"), (torch.float8_e4m3fn, "F8_E4M3"), (torch.uint8, "U8")):
        changed = tensors | {name: tensors[name].to(codes)}
        save_file(changed, folder / "model.safetensors", metadata={"format": "pt"})
        with pytest.raises(ModelError, match=f"{name} of type {type_}, .* names no quantization"):
            check_weights(BaseSpec(model=str(folder)))
