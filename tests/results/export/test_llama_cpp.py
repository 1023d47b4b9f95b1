"""The llama.cpp export: commands that are true for this adapter, run as far as this machine allows."""

from __future__ import annotations

import json
import math
import os
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from results.best import best_config
from results.errors import ExportError, LossyExport
from results.export.registry import export

KEYS = yaml.safe_load(Path(__file__).with_name("published_keys.yaml").read_text(encoding="utf-8"))[
    "llama.cpp"
]
IDS = torch.arange(2, 30)[None]


def load(folder):
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)


def save_adapter(base, folder, **options):
    """An adapter with nothing at zero."""
    settings = {"r": 4, "lora_alpha": 8, "target_modules": "all-linear", "task_type": "CAUSAL_LM"} | options
    model = get_peft_model(load(base), LoraConfig(**settings))
    torch.manual_seed(1)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data += 0.1 * torch.randn_like(parameter)
    model.save_pretrained(folder)
    return folder


@pytest.fixture
def make(make_trial, make_study, tmp_path, tiny_model):
    """`make(tied, **LoraConfig)` -> base, adapter, config."""

    def of(tied=False, **options):
        base = tiny_model("llama", tie_word_embeddings=tied)
        adapter = save_adapter(base, tmp_path / "adapter", **options)
        study = make_study(make_trial(2.0), context={"model": str(base), "compute_dtype": "float32"})
        saved = json.loads((adapter / "adapter_config.json").read_text())
        config = best_config(study, adapter_config=saved)
        config["lora"] |= {
            "modules_to_save": options.get("modules_to_save") or [],
            "trainable_token_indices": options.get("trainable_token_indices") or [],
        }
        if not (config["lora"]["modules_to_save"] or config["lora"]["trainable_token_indices"]):
            config["training"]["embedding_learning_rate"] = None
        return base, adapter, config

    return of


def run_convert(folder, tmp_path, **environment):
    """convert.sh with a `python` that only writes down what it is called with. -> the calls."""
    tools, log = tmp_path / "tools", tmp_path / "calls"
    tools.mkdir()
    # The arguments, one a line, calls apart by an empty line.
    (tools / "python").write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" >> "{log}"\necho >> "{log}"\n')
    (tools / "python").chmod(0o755)
    done = subprocess.run(
        ["bash", str(folder / "convert.sh")],
        env={"PATH": f"{tools}{os.pathsep}{os.environ['PATH']}", **environment},
        capture_output=True,
        text=True,
        timeout=30,
        cwd="/",
    )
    calls = log.read_text().split("\n\n")[:-1] if log.exists() else []
    return done, [call.split("\n") for call in calls]


def check_options(call, script):
    assert Path(call[0]).name == script
    options = {word for word in call[1:] if word.startswith("--")}
    assert options <= set(KEYS[script]), options


def test_a_plain_adapter_is_converted_as_an_adapter(make, tmp_path):
    base, adapter, config = make()
    out = tmp_path / "my export"
    export("llama.cpp", config, adapter, out)
    done, (call,) = run_convert(out, tmp_path, LLAMA_CPP="/opt/llama cpp")
    assert done.returncode == 0, done.stderr
    check_options(call, "convert_lora_to_gguf.py")
    assert call[0] == "/opt/llama cpp/convert_lora_to_gguf.py"
    assert call[call.index("--base") + 1] == str(base)  # a folder that is there
    assert call[-1] == str(out)
    assert (Path(call[-1]) / "adapter_config.json").is_file()
    # The converter ends at anything else.
    names = load_file(out / "adapter_model.safetensors")
    assert all(name.endswith((".lora_A.weight", ".lora_B.weight")) for name in names)


def test_a_hub_id_goes_by_its_name_and_a_folder_of_the_user_wins(make, tmp_path):
    _, adapter, config = make()
    config["model"]["name"] = "owner/it's a $(name)"
    export("llama.cpp", config, adapter, tmp_path / "out")
    _, (call,) = run_convert(tmp_path / "out", tmp_path, LLAMA_CPP="/x")
    assert call[call.index("--base-model-id") + 1] == "owner/it's a $(name)"
    (tmp_path / "again").mkdir()
    _, (call,) = run_convert(tmp_path / "out", tmp_path / "again", LLAMA_CPP="/x", BASE="/my base")
    assert call[call.index("--base") + 1] == "/my base"
    assert "--base-model-id" not in call
    assert "--trust-remote-code" not in call


def test_without_a_checkout_of_llama_cpp_nothing_starts(make, tmp_path):
    _, adapter, config = make()
    export("llama.cpp", config, adapter, tmp_path / "out")
    done, calls = run_convert(tmp_path / "out", tmp_path)
    assert done.returncode != 0
    assert "folder of a llama.cpp checkout" in done.stderr
    assert calls == []


def test_rslora_is_scaled_as_llama_cpp_computes(make, tmp_path):
    base, adapter, config = make(use_rslora=True)
    result = export("llama.cpp", config, adapter, tmp_path / "out")
    written = json.loads((tmp_path / "out" / "adapter_config.json").read_text())
    assert not written["use_rslora"]
    assert written["lora_alpha"] / written["r"] == pytest.approx(8 / math.sqrt(4))
    assert any("llama.cpp computes alpha / r" in note for note in result.notes)
    with torch.no_grad():
        before = PeftModel.from_pretrained(load(base), adapter)(IDS).logits
        after = PeftModel.from_pretrained(load(base), tmp_path / "out")(IDS).logits
    assert torch.allclose(before, after, atol=1e-5)


TRAINED = [
    pytest.param(False, {"modules_to_save": ["embed_tokens", "lm_head"]}, id="both"),
    pytest.param(True, {"modules_to_save": ["embed_tokens"], "ensure_weight_tying": True}, id="tied"),
    pytest.param(False, {"trainable_token_indices": [3, 9]}, id="tokens"),
    pytest.param(True, {"trainable_token_indices": [3, 9]}, id="tied tokens"),
]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("tied", "options"), TRAINED)
def test_trained_embeddings_are_merged_and_the_merged_model_is_the_same(
    make, tmp_path, monkeypatch, tied, options
):
    base, adapter, config = make(tied, use_rslora=True, **options)
    result = export("llama.cpp", config, adapter, tmp_path / "out")
    assert any("merged into a full model" in line for line in result.lossy)
    done, (merge, convert) = run_convert(tmp_path / "out", tmp_path, LLAMA_CPP="/x")
    assert done.returncode == 0, done.stderr
    assert merge[0] == str(tmp_path / "out" / "merge.py")
    check_options(convert, "convert_hf_to_gguf.py")
    monkeypatch.setattr(sys, "argv", [*merge, "--dtype", "float32"])  # no rounding to compare beside
    runpy.run_path(merge[0], run_name="__main__")
    assert convert[-1] == merge[merge.index("--output") + 1]
    merged = AutoModelForCausalLM.from_pretrained(convert[-1], dtype=torch.float32)
    with torch.no_grad():
        expected = PeftModel.from_pretrained(load(base), adapter)(IDS).logits
        untouched = load(base)(IDS).logits
        found = merged(IDS).logits
    assert torch.allclose(found, expected, atol=1e-4)
    assert not torch.allclose(untouched, expected, atol=1e-2)
    assert (Path(convert[-1]) / "tokenizer.json").is_file()
    with pytest.raises(SystemExit, match="holds files already"):
        runpy.run_path(merge[0], run_name="__main__")


def test_strict_refuses_and_no_adapter_is_no_export(make, tmp_path):
    _, adapter, config = make()
    with pytest.raises(LossyExport, match="trains no LoRA adapter on a 4-bit base"):
        export("llama.cpp", config, adapter, tmp_path / "out", strict=True)
    with pytest.raises(ExportError, match="needs the folder of the trained adapter"):
        export("llama.cpp", config, None, tmp_path / "out")
    assert not (tmp_path / "out").exists()
