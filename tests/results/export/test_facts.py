"""Every target exports every valid config: its files parse, and each fact is in them or listed as lost."""

from __future__ import annotations

import ast
import itertools
import json
import re
import shlex
import subprocess
import tempfile
from pathlib import Path

import pytest
import torch
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from files_and_text.choices import SCHEDULERS
from files_and_text.yaml_lines import load_yaml
from results.best import best_config, read_best_config
from results.export import TARGETS
from results.export.config_values import auto_class
from results.export.facts import FACTS, facts_of
from results.export.registry import export
from results.export.target import lossy_sentences

KEYS = yaml.safe_load(Path(__file__).with_name("published_keys.yaml").read_text(encoding="utf-8"))
SETTINGS = {
    "transformers": "training_args.yaml",
    "trl": "sft_config.yaml",
    "unsloth": "training_args.yaml",
    "axolotl": "axolotl.yaml",
    "llama-factory": "train.yaml",
}

# What a name of a sweep, model or file can be: blanks, quotes, shell and template characters, line breaks.
wild = st.text(
    st.one_of(st.characters(exclude_categories=("Cs",)), st.sampled_from("'\"\\$`;&|<>{}%#: \n")),
    min_size=1,
    max_size=20,
)
tidy = st.sampled_from(["meta-llama/Llama-3.1-8B", "/data/my model/ünï", "no", "1e-4", "010", "~/x", "a: b"])
rates = st.floats(1e-7, 1e-1)


@st.composite
def schedules(draw):
    name = draw(st.sampled_from(SCHEDULERS))
    kwargs = {
        "cosine_with_min_lr": {"min_lr_rate": draw(st.floats(0, 1))},
        "warmup_stable_decay": {"num_decay_steps": draw(st.integers(1, 50)), "decay_type": "1-sqrt"},
        "inverse_sqrt": draw(st.sampled_from([{}, {"timescale": 7}])),
    }.get(name, {})
    return {"lr_scheduler_type": name, "lr_scheduler_kwargs": kwargs}


@st.composite
def configs(draw):
    trained = draw(st.sampled_from(["nothing", "both", "embed_tokens", "tokens", "wte"]))
    modules = {"both": ["embed_tokens", "lm_head"], "embed_tokens": ["embed_tokens"], "wte": ["wte"]}
    micro, accumulation = draw(st.integers(1, 64)), draw(st.integers(1, 16))
    names = st.one_of(tidy, wild)
    train = st.one_of(
        st.sampled_from(
            ["/d/train.jsonl", "/d/ä b/t.parquet", "owner/name", "owner/name:part", "/folder", "t.tsv"]
        ),
        wild,
    )
    return {
        "sweep": {"name": draw(names), "study_hash": "ab12", "trial": draw(st.integers(0, 999))},
        "model": {
            "name": draw(names),
            "revision": draw(st.sampled_from([None, "main", "5d8e" * 10])),
            "trust_remote_code": draw(st.booleans()),
            "size": 8.03e9,
            "class": draw(st.sampled_from([None, "AutoModelForCausalLM", "AutoModelForImageTextToText"])),
        },
        "quantization": {
            "load_in_4bit": draw(st.sampled_from([True, True, None])),
            "bnb_4bit_quant_type": "nf4",
            "bnb_4bit_use_double_quant": True,
            "bnb_4bit_compute_dtype": draw(st.sampled_from(["bfloat16", "float32"])),
        },
        "lora": {
            "lora_r": draw(st.integers(1, 256)),
            "lora_alpha": draw(st.one_of(st.integers(1, 512), st.floats(0.5, 64))),
            "lora_dropout": draw(st.sampled_from([None, 0.0, 0.1])),
            "use_rslora": draw(st.booleans()),
            "target_modules": draw(st.sampled_from(["all-linear", ["q_proj", "v_proj"]])),
            "modules_to_save": modules.get(trained, []),
            "trainable_token_indices": [1, 7] if trained == "tokens" else [],
        },
        "training": {
            "learning_rate": draw(rates),
            "embedding_learning_rate": None if trained == "nothing" else draw(st.one_of(rates, st.just(0.0))),
            **draw(schedules()),
            "warmup_ratio": 0.03,
            "warmup_steps": draw(st.integers(0, 40)),
            "max_steps": draw(st.integers(1, 10**6)),
            "per_device_train_batch_size": micro,
            "gradient_accumulation_steps": accumulation,
            "effective_batch_size": micro * accumulation,
            "weight_decay": draw(st.sampled_from([0.0, 0.01])),
            "max_grad_norm": draw(st.sampled_from([0.0, 0.3, 1.0])),
            "adam_beta1": 0.9,
            "adam_beta2": draw(st.sampled_from([0.95, 0.999])),
            "adam_epsilon": 1e-8,
            "optim": "adamw_torch",
            "seed": draw(st.integers(0, 2**32 - 1)),
            "trained_embeddings_dtype": "float32",
            "embedding_optimizer_bits": draw(st.sampled_from([32, 8])),
        },
        "data": {
            "train": draw(train),
            "eval": draw(st.sampled_from([None, "/d/eval.jsonl"])),
            "train_split": "train",
            "eval_split": draw(st.sampled_from([None, "validation"])),
            "format": draw(
                st.sampled_from([None, "messages", "sharegpt", "prompt_completion", "alpaca", "text"])
            ),
            "max_length": draw(st.sampled_from([None, 2, 4096])),
            "completion_only": draw(st.sampled_from([None, True, False])),
            "chat_template": draw(
                st.sampled_from(
                    [None, "chatml", "/t.jinja", "{% for m in messages %}{{ m.content }}{% endfor %}"]
                )
            ),
            "max_train_examples": draw(st.sampled_from([None, 500])),
        },
        "result": {"metric": "eval_loss", "eval_loss": 2.0, "base_eval_loss": 3.0},
        "versions": {"torch": "2.13.0"},
    }


def adapter_of(config, folder: Path) -> Path:
    """An adapter of this config for one layer, as peft would have saved it."""
    lora, name = config["lora"], "base_model.model.model.layers.0.self_attn.q_proj"
    weights = {f"{name}.lora_A.weight": torch.zeros(lora["lora_r"], 2)}
    weights[f"{name}.lora_B.weight"] = torch.zeros(2, lora["lora_r"])
    for module in lora["modules_to_save"]:
        weights[f"base_model.model.{module}.weight"] = torch.zeros(3, 2)
    if lora["trainable_token_indices"]:
        weights["base_model.model.embed_tokens.token_adapter.trainable_tokens_delta"] = torch.zeros(2, 2)
    written = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "r": lora["lora_r"],
        "lora_alpha": lora["lora_alpha"],
        "use_rslora": lora["use_rslora"],
        "target_modules": ["q_proj"],
        "modules_to_save": lora["modules_to_save"] or None,
        "trainable_token_indices": lora["trainable_token_indices"] or None,
    }
    (folder / "adapter_config.json").write_text(json.dumps(written))
    save_file(weights, folder / "adapter_model.safetensors")
    return folder


def flat(text: str) -> str:
    """Text without the marks and breaks of comments and docstrings."""
    return " ".join(re.sub(r"^#", "", text, flags=re.MULTILINE).split())


def constants(script: str) -> dict[str, object]:
    """The literal constants at the head of a script."""
    found = {}
    for node in ast.parse(script).body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            try:
                found[node.targets[0].id] = ast.literal_eval(node.value)
            except ValueError:
                found[node.targets[0].id] = ast.unparse(node.value)
    return found


def wanted(config) -> dict[str, object]:
    """What an export must say, fact by fact, in one spelling for all targets."""
    training, lora, data = config["training"], config["lora"], config["data"]
    plain = ("learning_rate", "warmup_steps", "max_steps", "weight_decay", "max_grad_norm", "seed")
    return {name: training[name] for name in (*plain, "adam_beta1", "adam_beta2", "adam_epsilon")} | {
        "model": config["model"]["name"],
        "revision": config["model"]["revision"],
        "lora_r": lora["lora_r"],
        "lora_alpha": lora["lora_alpha"],
        "use_rslora": lora["use_rslora"],
        "lora_dropout": lora["lora_dropout"] or 0.0,
        "target_modules": lora["target_modules"],
        "modules_to_save": lora["modules_to_save"],
        "trainable_token_indices": lora["trainable_token_indices"],
        "embedding_learning_rate": training["embedding_learning_rate"],
        "lr_scheduler": (training["lr_scheduler_type"], training["lr_scheduler_kwargs"]),
        "batch_size": (training["per_device_train_batch_size"], training["gradient_accumulation_steps"]),
        "optim": training["optim"],
        "max_length": data["max_length"],
        "completion_only": data["completion_only"],
    }


def told(target: str, folder: Path) -> dict[str, object]:
    """The same from the written files, read by the target's own names."""
    keys = yaml.safe_load((folder / SETTINGS[target]).read_text(encoding="utf-8"))
    plain = ("learning_rate", "warmup_steps", "max_steps", "weight_decay", "max_grad_norm", "seed")
    said = {name: keys.get(name) for name in (*plain, "adam_beta1", "adam_beta2", "adam_epsilon")}
    if target == "axolotl":
        return said | {
            "model": keys["base_model"],
            "revision": keys.get("revision_of_model"),
            "lora_r": keys["lora_r"],
            "lora_alpha": keys["lora_alpha"],
            "use_rslora": keys["peft_use_rslora"],
            "lora_dropout": keys["lora_dropout"],
            "target_modules": "all-linear" if keys.get("lora_target_linear") else keys["lora_target_modules"],
            "modules_to_save": keys.get("lora_modules_to_save"),
            "trainable_token_indices": keys.get("peft_trainable_token_indices"),
            "embedding_learning_rate": keys.get("embedding_lr"),
            "lr_scheduler": (keys["lr_scheduler"], keys.get("lr_scheduler_kwargs", {})),
            "batch_size": (keys["micro_batch_size"], keys["gradient_accumulation_steps"]),
            "optim": keys["optimizer"],
            "max_length": keys["sequence_len"],
            "completion_only": not keys["train_on_inputs"],
        }
    said |= {
        "lr_scheduler": (keys["lr_scheduler_type"], keys.get("lr_scheduler_kwargs", {})),
        "batch_size": (keys["per_device_train_batch_size"], keys["gradient_accumulation_steps"]),
        "optim": keys["optim"],
    }
    if target == "llama-factory":
        modules = keys["lora_target"]
        return said | {
            "model": keys["model_name_or_path"],
            "revision": keys.get("model_revision"),
            "lora_r": keys["lora_rank"],
            "lora_alpha": keys["lora_alpha"],
            "use_rslora": keys["use_rslora"],
            "lora_dropout": keys["lora_dropout"],
            "target_modules": "all-linear" if modules == "all" else modules.split(","),
            "modules_to_save": keys.get("additional_target", "").split(","),
            "max_length": keys["cutoff_len"],
            "completion_only": not keys["train_on_prompt"] if keys["stage"] == "sft" else None,
        }
    script = constants((folder / "train.py").read_text(encoding="utf-8"))
    lora = script["LORA"]
    assert isinstance(lora, dict)
    rate = keys.get("embedding_learning_rate") if target == "unsloth" else script["EMBEDDING_LEARNING_RATE"]
    return said | {
        "model": script["MODEL"],
        "revision": script["REVISION"],
        "lora_r": lora["r"],
        **{name: lora[name] for name in ("lora_alpha", "use_rslora", "lora_dropout", "target_modules")},
        "modules_to_save": lora["modules_to_save"],
        "trainable_token_indices": lora.get("trainable_token_indices"),
        "embedding_learning_rate": rate,
        "max_length": script["MAX_LENGTH"],
        "completion_only": script["COMPLETION_ONLY"],
    }


def check_types(keys, known) -> None:
    kinds = {"str": str, "int": int, "float": float, "bool": bool, "list": list, "dict": dict}
    for name, value in keys.items():
        assert name in known, f"{name} is not a key of the target"
        allowed = known[name] if isinstance(known[name], list) else [known[name]]
        assert type(value) in [kinds[kind] for kind in allowed], (name, value)


@pytest.mark.slow
@pytest.mark.parametrize("target", TARGETS)
@settings(max_examples=30)
@given(config=configs())
def test_every_fact_is_in_the_files_or_listed_as_lost(target, config):
    with tempfile.TemporaryDirectory() as place:
        adapter = Path(place, "adapter")
        adapter.mkdir()
        folder = Path(place, "out")
        result = export(target, config, adapter_of(config, adapter), folder)
        # The data code is the same for every config.
        own = (file for file in result.files if file.parent == folder and file.suffix != ".safetensors")
        texts = {file.name: file.read_text("utf-8") for file in own}
        whole = flat("\n".join(texts.values()))
        for fact in facts_of(config):
            how = result.facts[fact.name]
            assert how.settings or how.location or how.lost, fact.name
            if how.lost:
                assert how.lost in result.lossy
                assert flat(how.lost) in whole, fact.name
        assert "ab12" in whole
        assert "2.13.0" in whole
        for name, text in texts.items():
            if name.endswith(".yaml"):
                assert load_yaml(text)[0] == yaml.safe_load(text)
                assert "!!" not in "".join(line for line in text.splitlines() if line.startswith("#"))
            elif name.endswith(".json"):
                json.loads(text)
            elif name.endswith(".py"):
                ast.parse(text)
        classes = {name for text in texts.values() for name in re.findall(r"AutoModelFor\w+", text)}
        assert classes <= {auto_class(config)} or target == "yaml"
        says_trust = re.search(
            r"trust.remote.code[\"']?[=: ]+(true|True)|--trust-remote-code",
            "".join(text for name, text in texts.items() if name != "config.yaml"),
        )
        assert bool(says_trust) is config["model"]["trust_remote_code"] or target in ("yaml", "llama.cpp")
        assert config["model"]["trust_remote_code"] or not says_trust
        if target not in SETTINGS:
            return
        keys = yaml.safe_load(texts[SETTINGS[target]])
        assert "warmup_ratio" not in keys
        if target in KEYS:
            check_types(keys, KEYS[target]["keys"])
        expected, found = wanted(config), told(target, folder)
        for fact in facts_of(config):
            if (
                fact.name in expected
                and not result.facts[fact.name].lost
                and found.get(fact.name) is not None
            ):
                assert found[fact.name] == expected[fact.name], fact.name
        compared = {fact.name for fact in facts_of(config) if found.get(fact.name) is not None}
        not_lost = {name for name in expected if name in result.facts and not result.facts[name].lost}
        silent = not_lost & {fact.name for fact in facts_of(config)} - compared
        assert silent <= {"completion_only", "revision"}, silent


@pytest.mark.parametrize("target", SETTINGS)
def test_no_combination_leaves_a_fact_unsaid(make_trial, make_study, target):
    """Every format with every template and everything that can be trained: what chance may not draw."""
    config = best_config(make_study(make_trial(2.0)))
    config["model"] |= {"revision": "v1", "trust_remote_code": True}
    config["training"]["embedding_optimizer_bits"] = 8
    trained = (["embed_tokens", "lm_head"], []), ([], [1, 2]), ([], [])
    formats = (None, "messages", "sharegpt", "prompt_completion", "alpaca", "text")
    for format, template, (modules, tokens) in itertools.product(
        formats, (None, "chatml", "/t.jinja"), trained
    ):
        config["data"] |= {"format": format, "chat_template": template, "max_train_examples": 5}
        config["lora"] |= {"modules_to_save": modules, "trainable_token_indices": tokens}
        draft = TARGETS[target].build(config, None, TARGETS[target].version(None))
        lossy_sentences(config, draft.facts)  # raises for a fact that is passed over


def test_the_facts_name_what_a_best_config_holds(make_trial, make_study):
    """A setting that a best config gains must be a fact, or be known to decide nothing."""
    config = best_config(make_study(make_trial(2.0)))
    places = {place for fact in FACTS for place in fact.keys}
    held = {
        f"{name}.{key}"
        for name in ("model", "quantization", "lora", "training", "data")
        for key in config[name]
    }
    nothing = {"model.size", "training.embedding_lr_ratio", "training.warmup_ratio"}
    nothing |= {f"data.{name}" for name in ("train_digest", "eval_digest", "num_eval_tokens")}
    assert held - places == nothing
    assert len({fact.name for fact in FACTS}) == len(FACTS)


def test_the_yaml_export_reads_back_as_the_same_config(make_trial, make_study, tmp_path):
    config = best_config(make_study(make_trial(2.0, lr=1e-4), name="010"))
    export("yaml", config, None, tmp_path, strict=True)
    assert read_best_config(tmp_path) == config


@given(name=wild)
@settings(max_examples=25)
def test_a_name_stays_one_word_to_the_shell(name):
    from results.export.jinja_templates import render_template

    values = {
        "provenance": [],
        "lossy_lines": [],
        "note_lines": [],
        "merged": False,
        "template": None,
        "trusted": False,
    }
    script = render_template("convert.sh.jinja", **(values | {"base": shlex.quote(name)}))
    assigned = script[script.index("\nmodel=") : script.index("\nif [")]
    if "\0" in name:
        return
    run = subprocess.run(
        ["bash", "-c", f'{assigned}\nprintf %s "$model"'], capture_output=True, text=False, timeout=20
    )
    assert run.stdout == name.encode()
