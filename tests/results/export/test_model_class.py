"""A base that only AutoModelForImageTextToText knows: what is exported loads it by that class."""

from __future__ import annotations

import re
import runpy
import sys

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForImageTextToText, AutoTokenizer

from results.best import best_config
from results.export.registry import export
from tests.lora_runner.base.architectures import ARCHITECTURES

CLASS = "AutoModelForImageTextToText"


@pytest.fixture
def config(make_trial, make_study, tiny_model, tmp_path):
    """The best config of a sweep on a tiny Qwen2-VL; base and adapter are in `tmp_path`."""
    torch.manual_seed(0)
    model = AutoModelForImageTextToText.from_config(ARCHITECTURES["Qwen2-VL"]()).float()
    model.save_pretrained(tmp_path / "base")
    AutoTokenizer.from_pretrained(tiny_model("llama")).save_pretrained(tmp_path / "base")
    targets = r".*language_model.*\.(q_proj|v_proj)"
    lora = LoraConfig(r=4, lora_alpha=8, target_modules=targets, task_type="CAUSAL_LM")
    trained = get_peft_model(model, lora)
    for parameter in trained.parameters():
        if parameter.requires_grad:
            parameter.data += 0.1 * torch.randn_like(parameter)
    trained.save_pretrained(tmp_path / "adapter")
    context = {"model": str(tmp_path / "base"), "model_class": CLASS, "compute_dtype": "float32"}
    found = best_config(make_study(make_trial(2.0), context=context))
    found["lora"] |= {"lora_r": 4, "lora_alpha": 8, "target_modules": targets, "modules_to_save": []}
    return found


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_peft_loads_and_merges_it_and_the_training_script_trains_it(config, tmp_path, monkeypatch):
    config["quantization"] |= {"load_in_4bit": False}
    ids = torch.arange(20, 40)[None]
    plain = AutoModelForImageTextToText.from_pretrained(tmp_path / "base", dtype=torch.float32)
    expected = PeftModel.from_pretrained(plain, tmp_path / "adapter")(input_ids=ids).logits

    folder = tmp_path / "peft"
    export("peft", config, tmp_path / "adapter", folder)
    (code,) = re.findall(r"```python\n(.*?)```", (folder / "README.md").read_text(), flags=re.DOTALL)
    monkeypatch.chdir(folder)
    names = {}
    exec(code, names)
    torch.testing.assert_close(names["model"].cpu()(input_ids=ids).logits, expected, rtol=1e-4, atol=1e-4)
    exact = ["merge.py", "--output", str(tmp_path / "merged"), "--dtype", "float32"]
    monkeypatch.setattr(sys, "argv", exact)
    runpy.run_path("merge.py", run_name="__main__")
    merged = AutoModelForImageTextToText.from_pretrained(tmp_path / "merged", dtype=torch.float32)
    torch.testing.assert_close(merged(input_ids=ids).logits, expected, rtol=1e-4, atol=1e-4)

    folder = tmp_path / "transformers"
    export("transformers", config, tmp_path / "adapter", folder)
    monkeypatch.chdir(folder)
    model = runpy.run_path("train.py")["load_model"](str(tmp_path / "base"))
    model(input_ids=ids, labels=ids).loss.backward()
    moved = [name for name, p in model.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0]
    assert moved
    assert [name for name in moved if "language_model" not in name] == []


@pytest.mark.parametrize("target", ["unsloth", "axolotl", "llama-factory"])
def test_programs_that_choose_the_class_themselves_list_it_as_lost(config, tmp_path, target):
    result = export(target, config, tmp_path / "adapter", tmp_path / "out")
    assert any("a base that sees as well" in sentence for sentence in result.lossy)
    del config["model"]["class"]
    result = export(target, config, tmp_path / "adapter", tmp_path / "usual")
    assert not any("a base that sees as well" in sentence for sentence in result.lossy)
