"""Exports: what they write, what they refuse, and that peft loads what is exported."""

from __future__ import annotations

import json
import re
import runpy
import shutil
import subprocess
import sys

import pytest
import torch
import yaml
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    BitsAndBytesConfig,
    HfArgumentParser,
    TrainingArguments,
)

from results.best import best_config
from results.errors import AdapterFilesError, ExportError, LossyExport, UnknownTarget, WouldOverwrite
from results.export import TARGETS
from results.export.registry import export


def load_nf4(folder):
    """The base as QLoRA has it, on CPU."""
    quantization = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.float32,
    )
    return AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, quantization_config=quantization, device_map="cpu"
    )


@pytest.fixture(scope="session")
def base(tiny_model):
    return tiny_model("llama")


@pytest.fixture(scope="session")
def adapter(base, tmp_path_factory):
    """A LoRA adapter with trained embeddings, none of it zero."""
    model = get_peft_model(
        load_nf4(base),
        LoraConfig(
            r=4,
            lora_alpha=8,
            target_modules="all-linear",
            modules_to_save=["embed_tokens", "lm_head"],
            task_type="CAUSAL_LM",
        ),
    )
    torch.manual_seed(1)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data += 0.1 * torch.randn_like(parameter)
    folder = tmp_path_factory.mktemp("adapter")
    model.save_pretrained(folder)
    return folder


@pytest.fixture
def config(base, make_trial, make_study):
    study = make_study(
        make_trial(2.0, lr=8e-4, ratio=0.1, warmup=0.05),
        context={
            "model": str(base),
            "compute_dtype": "float32",
            "lora_r": 4,
            "lora_alpha": 8,
            "max_length": 64,
        },
        name="tiny sweep",
    )
    return best_config(study)


def test_targets_of_today():
    assert {"peft", "transformers", "yaml"} <= set(TARGETS)


def test_unknown_target_names_the_nearest(config, tmp_path):
    with pytest.raises(UnknownTarget, match="Did you mean 'transformers'"):
        export("tranformers", config, None, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_yaml_is_the_config(config, tmp_path):
    result = export("yaml", config, None, tmp_path / "out")
    assert result.lossy == []
    assert yaml.safe_load(result.files[0].read_text()) == config


def test_nothing_is_overwritten_unasked(config, tmp_path):
    (tmp_path / "config.yaml").write_text("mine")
    with pytest.raises(WouldOverwrite, match=re.escape("config.yaml")):
        export("yaml", config, None, tmp_path)
    assert (tmp_path / "config.yaml").read_text() == "mine"
    export("yaml", config, None, tmp_path, overwrite=True)
    assert (tmp_path / "config.yaml").read_text() != "mine"
    assert [path.name for path in tmp_path.iterdir()] == ["config.yaml"]


def test_peft_export_loads_and_computes_the_same(base, adapter, config, tmp_path):
    result = export("peft", config, adapter, tmp_path / "out", strict=True)
    assert sorted(path.name for path in result.files) == [
        "README.md",
        "adapter_config.json",
        "adapter_model.safetensors",
        "config.yaml",
        "merge.py",
    ]
    written = json.loads((tmp_path / "out" / "adapter_config.json").read_text())
    assert written["base_model_name_or_path"] == str(base)
    ids = torch.arange(2, 30)[None]
    with torch.no_grad():
        trained = PeftModel.from_pretrained(load_nf4(base), adapter)(ids).logits
        exported = PeftModel.from_pretrained(load_nf4(base), tmp_path / "out")(ids).logits
        untouched = load_nf4(base)(ids).logits
    assert torch.equal(trained, exported)
    assert not torch.allclose(exported, untouched, atol=1e-2)


def test_the_readme_of_the_peft_export_is_code_that_runs(adapter, config, tmp_path, monkeypatch):
    export("peft", config, adapter, tmp_path / "out")
    readme = (tmp_path / "out" / "README.md").read_text()
    (code,) = re.findall(r"```python\n(.*?)```", readme, flags=re.DOTALL)
    monkeypatch.chdir(tmp_path / "out")
    scope: dict[str, object] = {}
    exec(code, scope)
    assert isinstance(scope["model"], PeftModel)
    weights = load_file(adapter / "adapter_model.safetensors")
    name = next(name for name in weights if name.endswith("lora_A.weight"))
    loaded = scope["model"].state_dict()[name.replace("lora_A.weight", "lora_A.default.weight")]
    assert torch.equal(loaded, weights[name])


TEMPLATE = "{% for m in messages %}[{{ m.role }}]{{ m.content }}\n{% endfor %}"
TURNS = [{"role": "user", "content": "a"}]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("saved", [True, False])
def test_the_template_of_the_trials_travels_with_the_adapter(
    base, adapter, config, tmp_path, monkeypatch, saved
):
    """Into what the README loads, into the merged model and so into a GGUF file of it."""
    own = tmp_path / "adapter"
    shutil.copytree(adapter, own)
    config["data"]["chat_template"] = TEMPLATE
    if saved:
        tokenizer = AutoTokenizer.from_pretrained(base)
        tokenizer.chat_template = TEMPLATE
        tokenizer.save_pretrained(own)
    export("peft", config, own, tmp_path / "out", strict=True)
    readme = (tmp_path / "out" / "README.md").read_text()
    (code,) = re.findall(r"```python\n(.*?)```", readme, flags=re.DOTALL)
    monkeypatch.chdir(tmp_path / "out")
    scope: dict[str, object] = {}
    exec(code, scope)
    assert scope["tokenizer"].apply_chat_template(TURNS, tokenize=False) == "[user]a\n"
    export("llama.cpp", config, own, tmp_path / "gguf")
    assert (tmp_path / "gguf" / "chat_template.jinja").read_text() == TEMPLATE
    monkeypatch.setattr(sys, "argv", ["merge.py", "--output", str(tmp_path / "merged")])
    runpy.run_path(str(tmp_path / "gguf" / "merge.py"), run_name="__main__")
    merged = AutoTokenizer.from_pretrained(tmp_path / "merged")
    assert merged.apply_chat_template(TURNS, tokenize=False) == "[user]a\n"


def test_a_gguf_adapter_is_served_with_the_template(base, adapter, config, tmp_path):
    frozen = tmp_path / "frozen"
    model = get_peft_model(load_nf4(base), LoraConfig(r=4, target_modules=["q_proj"]))
    model.save_pretrained(frozen)
    config["lora"]["modules_to_save"] = []
    export("llama.cpp", config, frozen, tmp_path / "own")
    assert "--chat-template-file" not in (tmp_path / "own" / "convert.sh").read_text()
    config["data"]["chat_template"] = TEMPLATE
    export("llama.cpp", config, frozen, tmp_path / "out")
    served = "--jinja --chat-template-file $here/chat_template.jinja"
    assert served in (tmp_path / "out" / "convert.sh").read_text()


def test_a_damaged_adapter_is_never_exported(adapter, config, tmp_path):
    broken = tmp_path / "broken"
    broken.mkdir()
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        (broken / name).write_bytes((adapter / name).read_bytes())
    weights = load_file(adapter / "adapter_model.safetensors")
    name = next(name for name in weights if "lora_B" in name)
    save_file(
        weights | {name: torch.full_like(weights[name], float("nan"))}, broken / "adapter_model.safetensors"
    )
    with pytest.raises(AdapterFilesError, match="not finite"):
        export("peft", config, broken, tmp_path / "out")
    save_file({k: v for k, v in weights.items() if k != name}, broken / "adapter_model.safetensors")
    with pytest.raises(AdapterFilesError, match="no matching lora_B"):
        export("peft", config, broken, tmp_path / "out")
    with pytest.raises(ExportError, match="needs the folder of the trained adapter"):
        export("peft", config, None, tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["broken"]


@pytest.mark.parametrize("indices", [[1, 5, 7], {"embed_tokens": [1, 5, 7]}])
def test_rows_of_trained_tokens_are_exported_and_missed(base, config, tmp_path, indices):
    model = get_peft_model(
        load_nf4(base), LoraConfig(r=4, target_modules=["q_proj"], trainable_token_indices=indices)
    )
    model.save_pretrained(tmp_path / "adapter")
    result = export("peft", config, tmp_path / "adapter", tmp_path / "out", strict=True)
    assert any("rows of trained tokens" in note for note in result.notes)
    file = tmp_path / "adapter" / "adapter_model.safetensors"
    weights = load_file(file)
    (name,) = (name for name in weights if "trainable_tokens" in name)
    for fewer in ({name: weights[name][:2].clone()}, {}):
        save_file({k: v for k, v in weights.items() if k != name} | fewer, file)
        with pytest.raises(AdapterFilesError, match=f"trains 3 tokens but holds {2 if fewer else 0} rows"):
            export("peft", config, tmp_path / "adapter", tmp_path / "again")


def test_the_tokens_of_a_config_reach_the_script(config, tmp_path):
    assert config["lora"]["trainable_token_indices"] == []
    config["lora"] |= {"modules_to_save": [], "trainable_token_indices": [1, 5]}
    export("transformers", config, None, tmp_path / "out", strict=True)
    assert '"trainable_token_indices": [1, 5],' in (tmp_path / "out" / "train.py").read_text()
    config["training"]["embedding_learning_rate"] = None
    with pytest.raises(ExportError, match=r"\(trainable_token_indices\) but has no embedding_learning_rate"):
        export("transformers", config, None, tmp_path / "again")


def test_training_arguments_are_what_transformers_parses(config, tmp_path):
    export("transformers", config, None, tmp_path, strict=True)
    text = (tmp_path / "training_args.yaml").read_text()
    assert "warmup_ratio" not in text
    (args,) = HfArgumentParser(TrainingArguments).parse_yaml_file(str(tmp_path / "training_args.yaml"))
    assert (args.learning_rate, args.warmup_steps, args.max_steps) == (8e-4, 10, 200)
    assert isinstance(args.learning_rate, float)
    assert args.get_warmup_steps(200) == 10
    assert (args.per_device_train_batch_size, args.gradient_accumulation_steps) == (4, 2)
    assert args.lr_scheduler_type == "linear"


def test_the_script_is_clean_python_that_says_what_it_is(config, tmp_path):
    export("transformers", config, None, tmp_path)
    source = (tmp_path / "train.py").read_text()
    assert "sweep tiny sweep, trial 0" in source
    assert "What this script does differently from the sweep:\n- nothing\n" in source
    assert "EMBEDDING_LEARNING_RATE = 8" in source
    command = [
        sys.executable,
        "-m",
        "ruff",
        "check",
        "--isolated",
        "--select",
        "E,F,I,UP,B,SIM",
        "--ignore",
        "B905",
    ]
    run = subprocess.run(
        [*command, "--line-length", "120", str(tmp_path / "train.py")], capture_output=True, text=True
    )
    assert run.returncode == 0, run.stdout


def test_what_cannot_be_expressed_is_listed_and_strict_refuses(config, tmp_path):
    config["training"]["embedding_optimizer_bits"] = 8
    config["data"]["max_length"] = None
    with pytest.raises(LossyExport, match="recorded no max_length") as refused:
        export("transformers", config, None, tmp_path / "strict", strict=True)
    assert len(refused.value.lossy) == 2
    assert not (tmp_path / "strict").exists()
    result = export("transformers", config, None, tmp_path / "out")
    assert result.lossy == refused.value.lossy
    flat = " ".join((tmp_path / "out" / "train.py").read_text().split())
    for line in result.lossy:
        assert line in flat
        assert line in (tmp_path / "out" / "training_args.yaml").read_text()


@pytest.mark.parametrize(
    ("section", "name", "words"),
    [
        ("training", "max_steps", "training.max_steps"),
        ("training", "embedding_learning_rate", "no embedding_learning_rate"),
        ("model", "name", "model.name"),
        ("quantization", "bnb_4bit_compute_dtype", "compute dtype must be"),
    ],
)
def test_a_config_that_lacks_what_the_script_needs_is_refused(config, tmp_path, section, name, words):
    config[section][name] = None
    with pytest.raises(ExportError, match=re.escape(words)):
        export("transformers", config, None, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_a_schedule_without_its_arguments_is_refused(config, tmp_path):
    config["training"]["lr_scheduler_type"] = "warmup_stable_decay"
    with pytest.raises(ExportError, match="needs lr_scheduler_kwargs"):
        export("transformers", config, None, tmp_path / "out")
    config["training"]["lr_scheduler_kwargs"] = {"num_decay_steps": 20}
    export("transformers", config, None, tmp_path / "out")
    (args,) = HfArgumentParser(TrainingArguments).parse_yaml_file(
        str(tmp_path / "out" / "training_args.yaml")
    )
    assert args.lr_scheduler_kwargs == {"num_decay_steps": 20}


def test_a_name_cannot_break_out_of_the_script(config, tmp_path):
    config["sweep"]["name"] = 'x"""\nimport os\n"""\\'
    config["model"]["name"] = 'a"b\\c\n'
    export("transformers", config, None, tmp_path)
    scope: dict[str, object] = {}
    source = (tmp_path / "train.py").read_text()
    line = next(line for line in source.splitlines() if line.startswith("MODEL = "))
    exec(line, scope)
    assert scope["MODEL"] == 'a"b\\c\n'
    assert "\nimport os" not in source.split("from __future__")[0]
