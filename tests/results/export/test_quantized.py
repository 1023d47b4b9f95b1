"""A base that is stored quantized: recorded as what it is, exported as that, and merged with its weights."""

from __future__ import annotations

import ast
import re
import runpy
import sys

import pytest
import torch
import yaml
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig

from results.best import best_config
from results.export.registry import export
from results.text.conditions import conditions_statement
from results.verdict.applicability import conditions_of
from search_spaces import load_guidelines

FOUR = {"load_in_4bit": True, "bnb_4bit_use_double_quant": False}
KINDS = {
    "nf4": FOUR | {"bnb_4bit_quant_type": "nf4", "bnb_4bit_use_double_quant": True},
    "nf4-single": FOUR | {"bnb_4bit_quant_type": "nf4"},
    "fp4": FOUR | {"bnb_4bit_quant_type": "fp4", "llm_int8_skip_modules": ["lm_head"]},
    "int8": {"load_in_8bit": True},
}


@pytest.fixture
def make_config(make_trial, make_study):
    """`make_config(kind, **context)`: the best config of a sweep on such a base."""

    def make(kind, **context):
        context = {"quantization": kind, "quantization_config": KINDS[kind], **context}
        return best_config(make_study(make_trial(2.0, lr=8e-4), context={"max_length": 64, **context}))

    return make


def meaning(arguments):
    config = BitsAndBytesConfig(**arguments).to_dict()
    return {
        name: config[name]
        for name in (
            *("load_in_4bit", "load_in_8bit", "bnb_4bit_quant_type"),
            *("bnb_4bit_use_double_quant", "llm_int8_skip_modules"),
        )
    }


@pytest.mark.parametrize("kind", KINDS)
def test_what_the_sweep_recorded_stands_in_the_best_config_and_in_the_scripts(make_config, tmp_path, kind):
    config = make_config(kind)
    recorded = {name: config["quantization"].get(name) for name in KINDS[kind]}
    assert recorded == KINDS[kind]
    assert config["quantization"]["load_in_4bit"] is (kind != "int8")
    for target in ("transformers", "trl"):
        result = export(target, config, None, tmp_path / target)
        script = (tmp_path / target / "train.py").read_text()
        (said,) = re.findall(r"^QUANTIZATION = (\{.*?^\})", script, flags=re.DOTALL | re.MULTILINE)
        assert meaning(ast.literal_eval(said)) == meaning(KINDS[kind])
        assert any("rounds activations" in line for line in result.lossy) == (kind == "int8")
    export("llama-factory", config, None, tmp_path / "factory")
    (file,) = [f for f in (tmp_path / "factory").glob("*.yaml") if "quantization_bit" in f.read_text()]
    assert yaml.safe_load(file.read_text())["quantization_bit"] == (8 if kind == "int8" else 4)
    unusual = export("unsloth", config, None, tmp_path / "unsloth").lossy
    assert any("NF4 with double quantization only" in line for line in unusual) == (kind != "nf4")
    axolotl = export("axolotl", config, None, tmp_path / "axolotl").lossy
    assert any("stored in int8" in line for line in axolotl) == (kind == "int8")


def test_a_study_from_before_kinds_were_recorded_reads_as_it_did(make_trial, make_study):
    def quantization(**context):
        study = make_study(make_trial(2.0), context=context)
        return best_config(study)["quantization"]

    nf4 = quantization(quantization="nf4")
    assert (nf4["load_in_4bit"], nf4["bnb_4bit_quant_type"], nf4["bnb_4bit_use_double_quant"]) == (
        *(True, "nf4", True),
    )
    unknown = quantization(quantization=None)
    assert {unknown[name] for name in nf4 if name != "bnb_4bit_compute_dtype"} == {None}


def test_a_row_about_4_bit_bases_says_that_int8_is_none():
    row = next(row for row in load_guidelines().values() if row.when.method == "qlora")
    for kind in KINDS:
        said = conditions_statement(conditions_of(row, {"quantization": kind}))
        assert ("the base is int8 here and 4-bit in the row" in said) == (kind == "int8")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", ["fp4", "int8"])
def test_peft_loads_the_adapter_on_that_base_and_the_script_merges_into_its_weights(
    make_config, tiny_model, tmp_path, monkeypatch, kind
):
    source, folder, out = tiny_model("llama"), tmp_path / "base", tmp_path / "out"
    quantization = BitsAndBytesConfig(**KINDS[kind])
    model = AutoModelForCausalLM.from_pretrained(
        source, quantization_config=quantization, dtype=torch.float32
    )
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(source).save_pretrained(folder)
    lora = LoraConfig(r=4, lora_alpha=8, target_modules="all-linear", task_type="CAUSAL_LM")
    trained = get_peft_model(model, lora)
    torch.manual_seed(1)
    for parameter in trained.parameters():
        if parameter.requires_grad:
            parameter.data += 0.1 * torch.randn_like(parameter)
    trained.save_pretrained(tmp_path / "adapter")
    config = make_config(kind, model=str(folder), compute_dtype="float32", lora_r=4, lora_alpha=8)
    export("peft", config, tmp_path / "adapter", out)
    ids = torch.arange(2, 30)[None]
    plain = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).dequantize().float()
    with torch.no_grad():
        untouched = plain(ids).logits
        expected = PeftModel.from_pretrained(plain, tmp_path / "adapter")(ids).logits
    (code,) = re.findall(r"```python\n(.*?)```", (out / "README.md").read_text(), flags=re.DOTALL)
    monkeypatch.chdir(out)
    names = {}
    exec(code, names)
    with torch.no_grad():
        loaded = names["model"].cpu()(ids).logits
    # Its kernels on a CPU round more than plain ones; int8 also rounds activations.
    assert torch.allclose(loaded, expected, atol=5e-3 if kind == "fp4" else 2e-1)
    monkeypatch.setattr(sys, "argv", ["merge.py", "--output", str(tmp_path / "merged"), "--dtype", "float32"])
    runpy.run_path(str(out / "merge.py"), run_name="__main__")
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "merged", dtype=torch.float32)
    with torch.no_grad():
        assert torch.allclose(merged(ids).logits, expected, atol=1e-4)
    assert not torch.allclose(untouched, expected, atol=1e-2)
