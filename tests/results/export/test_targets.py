"""Axolotl, LLaMA-Factory and Unsloth: published keys, and the traps of each that an export must not hide."""

from __future__ import annotations

import ast
import json
from pathlib import Path

import pytest
import yaml

from results.best import best_config
from results.errors import ExportError, LossyExport
from results.export.registry import export

KEYS = yaml.safe_load(Path(__file__).with_name("published_keys.yaml").read_text(encoding="utf-8"))
WITH_KEYS = ("transformers", "trl", "unsloth", "axolotl", "llama-factory")


@pytest.fixture
def config(make_trial, make_study):
    """Embeddings trained in full, on a bfloat16 base."""
    return best_config(make_study(make_trial(2.0, lr=8e-4, ratio=0.1), name="a sweep"))


def frozen(config):
    config["lora"]["modules_to_save"] = []
    config["training"]["embedding_learning_rate"] = None
    return config


def keys_of(result, name):
    (file,) = (file for file in result.files if file.name == name)
    return yaml.safe_load(file.read_text())


# --- what holds for all ---------------------------------------------------------------------------


@pytest.mark.parametrize("target", WITH_KEYS)
def test_8_bit_moments_are_listed_as_lost(config, tmp_path, target):
    before = export(target, config, None, tmp_path / "32").lossy
    config["training"]["embedding_optimizer_bits"] = 8
    (found,) = set(export(target, config, None, tmp_path / "8").lossy) - set(before)
    assert "in 8 bits; here they are kept in 32" in found
    with pytest.raises(LossyExport, match="in 8 bits"):
        export(target, config, None, tmp_path / "strict", strict=True)
    assert not (tmp_path / "strict").exists()


@pytest.mark.parametrize("target", WITH_KEYS)
def test_what_evaluates_on_other_records_than_the_trials_says_so(config, tmp_path, target):
    data, scripts = config["data"], ("transformers", "trl", "unsloth")
    data |= {"max_eval_examples": 48, "num_eval_records": 500, "num_eval_used": 48}
    fewer = export(target, config, None, tmp_path / "fewer")
    said = [line for line in fewer.lossy if "evaluation records" in line]
    if target in scripts:
        assert said == []
        assert '"max_eval_examples": 48' in (tmp_path / "fewer" / "train.py").read_text()
        return
    (line,) = said
    assert "evaluated on 48 of 500 evaluation records, drawn by content hash" in line
    data |= {"num_eval_used": 500}
    assert not [line for line in export(target, config, None, tmp_path / "all").lossy if "evaluated" in line]
    del data["num_eval_used"], data["num_eval_records"]
    older = export(target, config, None, tmp_path / "older").lossy
    assert any("at most 48 of the evaluation records" in line for line in older)
    data["max_eval_examples"] = None
    assert not [line for line in export(target, config, None, tmp_path / "any").lossy if "evaluated" in line]


@pytest.mark.parametrize("target", WITH_KEYS)
def test_the_product_of_the_batch_and_the_trial_stand_in_the_head(config, tmp_path, target):
    result = export(target, config, None, tmp_path)
    (settings,) = (file for file in result.files if file.suffix == ".yaml")
    head = settings.read_text().split("\noutput_dir")[0]
    assert "# Examples per step: 8 = " in head
    assert f"sweep a sweep, trial 0, study {config['sweep']['study_hash']}" in head
    assert "transformers 5.23.0" in head


@pytest.mark.parametrize(
    ("target", "version", "words"),
    [
        ("trl", "0.17", r"trl >= 0.18.2, < 2 \(1.16.0 when no version is named\); got 0.17"),
        ("axolotl", "1.0", "axolotl >= 0.18, < 0.22"),
        ("transformers", "4.50", "transformers >= 4.57, < 6"),
        ("transformers", "newest", "a target version looks like 5.23.0; got 'newest'"),
        ("yaml", "1", "the same for every version; got '1'"),
    ],
)
def test_a_version_that_is_not_written_for_is_refused(config, tmp_path, target, version, words):
    with pytest.raises(ExportError, match=words):
        export(target, config, None, tmp_path / "out", target_version=version)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("target", ["axolotl", "llama-factory", "unsloth"])
def test_the_version_that_was_read_is_the_default_and_named(config, tmp_path, target):
    result = export(target, config, None, tmp_path)
    assert any(f" {KEYS[target]['version']}; it needs a GPU and was not run" in note for note in result.notes)


@pytest.mark.parametrize("target", ["transformers", "trl", "unsloth", "axolotl", "llama-factory"])
@pytest.mark.parametrize(
    ("name", "revision", "said"),
    [("org/base", None, True), ("org/base", "5d8e", False), ("/models/base", None, False)],
)
def test_an_unpinned_base_from_a_hub_is_said(config, tmp_path, target, name, revision, said):
    config["model"] |= {"name": name, "revision": revision}
    notes = export(target, config, None, tmp_path).notes
    assert any("pinned no revision" in note for note in notes) == said


# --- Axolotl --------------------------------------------------------------------------------------


def test_axolotl_has_a_key_for_the_embedding_rate(config, tmp_path):
    config["quantization"]["bnb_4bit_compute_dtype"] = "float32"
    result = export("axolotl", config, None, tmp_path, strict=True)
    keys = keys_of(result, "axolotl.yaml")
    assert (keys["learning_rate"], keys["embedding_lr"]) == (8e-4, pytest.approx(8e-5))
    # A scale would win over the rate, and loraplus would drop the group.
    assert not {"embedding_lr_scale", "loraplus_lr_ratio", "loraplus_lr_embedding", "warmup_ratio"} & set(
        keys
    )
    assert keys["excess_length_strategy"] == "truncate"  # its default drops long records
    assert (keys["adapter"], keys["load_in_4bit"]) == ("qlora", True)


def test_axolotl_keeps_embeddings_in_the_dtype_of_the_base_and_says_so(config, tmp_path):
    (said,) = export("axolotl", config, None, tmp_path).lossy
    assert "Axolotl keeps them in bfloat16" in said
    assert f"# Not expressed: {said}" in (tmp_path / "axolotl.yaml").read_text()


@pytest.mark.parametrize(
    ("section", "changes", "words"),
    [
        ("training", {"warmup_steps": 1}, "2 steps of a warmup of 1"),
        ("training", {"embedding_learning_rate": 0.0}, "an embedding learning rate of 0 as none"),
        ("training", {"weight_decay": 0.1}, "never decays embeddings"),
        ("lora", {"lora_alpha": 22.6}, "Alpha is a whole number to Axolotl; the sweep found 22.6"),
        ("data", {"format": "alpaca"}, "alpaca records into a text of its own"),
        ("data", {"chat_template": "chatml"}, "Axolotl applies no chat template to prompt_completion"),
        ("data", {"max_train_examples": 9}, "drew 9 training records"),
        ("data", {"format": "messages", "completion_only": False}, "leaves out the marks between the turns"),
    ],
)
def test_traps_of_axolotl_are_listed(config, tmp_path, section, changes, words):
    config["quantization"]["bnb_4bit_compute_dtype"] = "float32"
    config[section] |= changes
    (said,) = export("axolotl", config, None, tmp_path).lossy
    assert words in said


def test_axolotl_trains_single_tokens_in_float32_by_its_own_key(config, tmp_path):
    config["lora"] |= {"modules_to_save": [], "trainable_token_indices": [3, 9]}
    result = export("axolotl", config, None, tmp_path, strict=True)
    assert keys_of(result, "axolotl.yaml")["peft_trainable_token_indices"] == [3, 9]


@pytest.mark.parametrize("format", ["messages", "sharegpt", "prompt_completion", "alpaca", "text"])
@pytest.mark.parametrize("target", ["axolotl", "llama-factory"])
def test_datasets_have_published_keys_alone(config, tmp_path, target, format):
    config["data"] |= {"format": format, "chat_template": "/t.jinja", "train": "owner/name:part"}
    result = export(target, config, None, tmp_path)
    if target == "axolotl":
        keys = keys_of(result, "axolotl.yaml")
        entries = keys["datasets"] + keys["test_datasets"]
        assert entries[0]["path"] == "owner/name"
        assert entries[1] == {"path": "eval.jsonl", "ds_type": "json", "split": "train"} | {
            name: value
            for name, value in entries[0].items()
            if name not in ("path", "name", "ds_type", "split")
        }
    else:
        entries = list(json.loads((tmp_path / "dataset_info.json").read_text()).values())
        assert entries[0]["hf_hub_url"] == "owner/name"
        assert entries[1]["file_name"] == "eval.jsonl"
    for entry in entries:
        assert set(entry) <= set(KEYS[target]["dataset_keys"]), entry


def test_sharegpt_roles_are_mapped(config, tmp_path):
    config["data"]["format"] = "sharegpt"
    (entry,) = keys_of(export("axolotl", config, None, tmp_path), "axolotl.yaml")["datasets"]
    assert entry["type"] == "chat_template"
    assert entry["message_property_mappings"] == {"role": "from", "content": "value"}
    assert entry["roles_to_train"] == ["assistant"]


# --- LLaMA-Factory --------------------------------------------------------------------------------


def test_llama_factory_has_no_rate_for_embeddings(config, tmp_path):
    result = export("llama-factory", config, None, tmp_path)
    rate = config["training"]["embedding_learning_rate"]
    assert f"they train at 0.0008 instead of {rate}." in " ".join(result.lossy)
    keys = keys_of(result, "train.yaml")
    assert keys["additional_target"] == "embed_tokens,lm_head"
    assert "loraplus_lr_embedding" not in keys  # governs LoRA on embeddings alone


def test_llama_factory_says_all_of_a_frozen_text_run(config, tmp_path):
    config = frozen(config)
    config["data"]["format"] = "text"
    result = export("llama-factory", config, None, tmp_path, strict=True)
    keys = keys_of(result, "train.yaml")
    # Its fine-tuning stage would give no loss to a lone prompt; packing would join the texts.
    assert (keys["stage"], keys["packing"], keys["lora_target"]) == ("pt", False, "all")
    assert json.loads((tmp_path / "dataset_info.json").read_text())["sweep_train"]["columns"] == {
        "prompt": "text"
    }


def test_llama_factory_trains_no_single_tokens(config, tmp_path):
    config["lora"] |= {"modules_to_save": [], "trainable_token_indices": [3, 9]}
    result = export("llama-factory", config, None, tmp_path)
    assert "LLaMA-Factory trains no rows of single tokens: all embeddings stay frozen." in result.lossy


def test_a_reference_to_omegaconf_is_not_hidden(config, tmp_path):
    config["model"]["name"] = "/models/${user}"
    assert any(
        "takes ${ in the name" in line for line in export("llama-factory", config, None, tmp_path).lossy
    )


def test_every_dataset_that_is_named_is_described(config, tmp_path):
    result = export("llama-factory", config, None, tmp_path)
    keys = keys_of(result, "train.yaml")
    described = json.loads((tmp_path / "dataset_info.json").read_text())
    assert {keys["dataset"], keys["eval_dataset"]} == set(described)
    assert keys["dataset_dir"] == "."


# --- Unsloth --------------------------------------------------------------------------------------


def test_unsloth_gets_the_embedding_rate_by_keyword_and_its_own_trainer(config, tmp_path):
    config["model"] |= {"trust_remote_code": True, "revision": "v2"}
    result = export("unsloth", config, None, tmp_path, strict=True)
    keys = keys_of(result, "training_args.yaml")
    assert keys["embedding_learning_rate"] == pytest.approx(8e-5)
    tree = ast.parse((tmp_path / "train.py").read_text())
    calls = {ast.unparse(node.func): node for node in ast.walk(tree) if isinstance(node, ast.Call)}
    assert {"UnslothTrainer", "UnslothTrainingArguments"} <= set(calls)
    # The first two places of UnslothTrainingArguments are its own settings.
    assert calls["UnslothTrainingArguments"].args == []
    given = {keyword.arg for keyword in calls["FastLanguageModel.from_pretrained"].keywords}
    assert given == set(KEYS["unsloth"]["from_pretrained"])
    passed = {keyword.arg for keyword in calls["FastLanguageModel.get_peft_model"].keywords} - {None}
    (lora,) = (
        ast.literal_eval(node.value)
        for node in tree.body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "LORA"
    )
    assert passed | set(lora) == set(KEYS["unsloth"]["get_peft_model"])
    imports = [node.module for node in tree.body if isinstance(node, ast.ImportFrom)]
    assert imports.index("unsloth") < imports.index("transformers")


def test_unsloth_trains_no_single_tokens_and_no_layers_of_another_name(config, tmp_path):
    config["lora"]["modules_to_save"] = ["wte"]
    assert "not wte" in export("unsloth", config, None, tmp_path / "wte").lossy[0]
    config["lora"] |= {"modules_to_save": [], "trainable_token_indices": [3]}
    result = export("unsloth", config, None, tmp_path / "tokens")
    assert any("rows of single tokens are not trained" in line for line in result.lossy)
    assert "embedding_learning_rate" not in keys_of(result, "training_args.yaml")


# --- code that comes with a model -----------------------------------------------------------------


@pytest.mark.parametrize("target", WITH_KEYS)
def test_code_of_a_model_is_trusted_only_where_the_sweep_said_so(config, tmp_path, target):
    result = export(target, config, None, tmp_path / "no")
    assert all("trust_remote_code" not in file.read_text() for file in result.files)
    config["model"]["trust_remote_code"] = True
    result = export(target, config, None, tmp_path / "yes")
    assert any("trust_remote_code" in file.read_text() for file in result.files)
