"""The best config and adapter in one folder."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import save_file

from results.best import best_config, read_best_config, write_best
from results.errors import AdapterFilesError, NothingToSay, ResultsError
from results.export import export
from tests.results.confirm_studies import ARMS, confirm
from tests.results.conftest import answer_of, study, trial

ADAPTER_CONFIG = """{"peft_type": "LORA", "task_type": "CAUSAL_LM",
 "base_model_name_or_path": "example/llama-8b",
 "r": 16, "lora_alpha": 16, "target_modules": ["q_proj"], "modules_to_save": ["embed_tokens"]}"""


def write_adapter(run: Path, number: int, value: float = 1.0) -> Path:
    folder = run / "trials" / f"{number:04d}" / "adapter"
    folder.mkdir(parents=True)
    (folder / "adapter_config.json").write_text(ADAPTER_CONFIG)
    save_file({"a": torch.full((4, 2), value)}, folder / "adapter_model.safetensors")
    return folder


def test_after_a_confirmation_best_and_exports_hold_the_loss_of_the_seeds(tmp_path):
    of = study(trial(2.5, label="guideline default"), trial(2.0, lr=4e-4, ratio=0.125, scheduler="cosine"))
    write_adapter(tmp_path, 1)
    best = write_best(of, tmp_path, answer=answer_of(of, confirm(*ARMS)))
    result = read_best_config(best)["result"]
    assert (result["seeds"], result["adapter_eval_loss"]) == (5, 2.0)
    assert result["eval_loss"] == pytest.approx(2.1, abs=0.001)
    assert result["eval_loss_low"] < 2.1 < result["eval_loss_high"]
    assert result["guideline_default"]["eval_loss"] == pytest.approx(2.2, abs=0.001)
    for target, file in (("trl", "sft_config.yaml"), ("axolotl", "axolotl.yaml")):
        folder = tmp_path / target
        export(target, read_best_config(best), best, folder)
        assert "2.100 (2.00 to 2.20, 5 seeds)" in (folder / file).read_text()


def test_best_folder_holds_adapter_and_config(make_trial, make_study, tmp_path):
    study = make_study(
        make_trial(2.5, label="guideline default"), make_trial(2.0, lr=8e-4, ratio=0.1, warmup=0.05)
    )
    write_adapter(tmp_path, 0, 0.0)
    adapter = write_adapter(tmp_path, 1)
    best = write_best(study, tmp_path)
    assert best == tmp_path / "best"
    names = sorted(path.name for path in best.iterdir())
    assert names == ["adapter_config.json", "adapter_model.safetensors", "config.yaml"]
    copied = (best / "adapter_model.safetensors").read_bytes()
    assert copied == (adapter / "adapter_model.safetensors").read_bytes()
    config = read_best_config(best)
    training = config["training"]
    assert training["learning_rate"] == 8e-4
    assert training["embedding_learning_rate"] == pytest.approx(8e-5)
    assert training["embedding_lr_ratio"] == 0.1
    assert (training["warmup_ratio"], training["warmup_steps"]) == (0.05, 10)
    assert (training["max_steps"], training["effective_batch_size"]) == (200, 4 * 2)
    assert config["quantization"]["bnb_4bit_quant_type"] == "nf4"
    assert config["lora"]["modules_to_save"] == ["embed_tokens"]  # as the adapter itself says
    assert config["result"]["eval_loss"] == 2.0
    assert config["result"]["base_eval_loss"] == 3.0
    assert config["result"]["guideline_default"] == {"trial": 0, "outcome": "complete", "eval_loss": 2.5}
    assert config["sweep"]["trial"] == 1
    data = config["data"]
    assert (data["train"], data["format"], data["completion_only"]) == (
        "train.jsonl",
        "prompt_completion",
        True,
    )
    assert (data["max_length"], data["train_digest"], data["eval_digest"]) == (512, "d1", "ab12")


def test_yaml_1_1_readers_get_the_same_numbers_and_no_python_types(make_trial, make_study, tmp_path):
    study = make_study(make_trial(np.float64(2.0), lr=1e-4, ratio=0.1))
    write_adapter(tmp_path, 0)
    text = (write_best(study, tmp_path) / "config.yaml").read_text()
    assert "!!" not in text
    plain_reader = yaml.safe_load(text)  # PyYAML reads YAML 1.1, where 1e-4 is text
    assert plain_reader == read_best_config(tmp_path / "best")
    assert plain_reader["training"]["learning_rate"] == 1e-4
    assert isinstance(plain_reader["training"]["embedding_learning_rate"], float)
    assert isinstance(plain_reader["training"]["adam_epsilon"], float)


@pytest.mark.parametrize("name", ["no", "12:30:45", "010", "1e3", "~", "0x1f", "2026-11-22", "a: b", "é"])
def test_names_that_yaml_would_read_as_something_else_stay_text(make_trial, make_study, tmp_path, name):
    study = make_study(make_trial(2.0), context={"model": name}, name=name)
    write_adapter(tmp_path, 0)
    text = (write_best(study, tmp_path) / "config.yaml").read_text()
    assert yaml.safe_load(text)["model"]["name"] == name
    assert read_best_config(tmp_path / "best")["sweep"]["name"] == name


def test_a_better_trial_replaces_the_folder_and_the_same_one_leaves_it(make_trial, make_study, tmp_path):
    study = make_study(make_trial(2.0))
    write_adapter(tmp_path, 0)
    first = write_best(study, tmp_path).stat().st_ino
    assert write_best(study, tmp_path).stat().st_ino == first
    study.add_trial(make_trial(1.5, lr=5e-4))
    with pytest.raises(AdapterFilesError, match="0001"):
        write_best(study, tmp_path)  # its adapter is missing: the old best stays
    assert read_best_config(tmp_path / "best")["sweep"]["trial"] == 0
    write_adapter(tmp_path, 1)
    write_best(study, tmp_path)
    assert read_best_config(tmp_path / "best")["sweep"]["trial"] == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["best", "trials"]


def test_a_truncated_adapter_is_refused(make_trial, make_study, tmp_path):
    weights = write_adapter(tmp_path, 0) / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-5])
    with pytest.raises(AdapterFilesError, match="not a complete safetensors file"):
        write_best(make_study(make_trial(2.0)), tmp_path)
    weights.write_bytes(b"\x01")
    with pytest.raises(AdapterFilesError, match="not a complete safetensors file"):
        write_best(make_study(make_trial(2.0)), tmp_path)
    assert not (tmp_path / "best").exists()


@pytest.mark.parametrize("folder", ["../elsewhere", "/etc", "trials/../../x"])
def test_a_trial_folder_outside_the_run_is_refused(make_trial, make_study, tmp_path, folder):
    study = make_study(make_trial(2.0, attrs={"folder": folder}))
    with pytest.raises(ResultsError, match="inside its run"):
        write_best(study, tmp_path)


def test_no_finished_trial_no_best(make_trial, make_study, tmp_path):
    study = make_study(
        make_trial(outcome="pruned", reports={40: 1.0}), make_trial(math.inf, reports={10: 1.0})
    )
    with pytest.raises(NothingToSay, match="1 complete, 1 pruned"):
        write_best(study, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_without_warmup_or_embeddings_the_config_says_so(make_trial, make_study):
    trial = make_trial(2.0, scheduler="constant")
    trial.user_attrs["config"]["embedding_learning_rate"] = None
    trial.user_attrs["config"]["warmup_steps"] = 20  # ignored by constant
    del trial.params["embedding_lr_ratio"]
    del trial.distributions["embedding_lr_ratio"]
    training = best_config(make_study(trial, context={"train_embeddings": False}))["training"]
    assert (training["warmup_steps"], training["warmup_ratio"]) == (0, 0.0)
    assert training["embedding_learning_rate"] is None
    assert training["embedding_lr_ratio"] is None


def test_what_only_the_sweep_file_says_is_kept(make_trial, make_study):
    plain = best_config(make_study(make_trial(2.0)))
    assert (plain["model"]["trust_remote_code"], plain["training"]["embedding_optimizer_bits"]) == (False, 32)
    context = {"trust_remote_code": True, "embedding_optimizer_bits": 8}
    config = best_config(make_study(make_trial(2.0), context=context))
    assert (config["model"]["trust_remote_code"], config["training"]["embedding_optimizer_bits"]) == (True, 8)


def test_a_searched_rank_wins_over_the_context(make_trial, make_study):
    trial = make_trial(2.0)
    trial.user_attrs["config"]["lora_r"] = 64
    assert best_config(make_study(trial))["lora"]["lora_r"] == 64


def test_the_study_hash_follows_the_trials(make_trial, make_study):
    def hash_of(*trials):
        return best_config(make_study(*trials, name="same"))["sweep"]["study_hash"]

    assert hash_of(make_trial(2.0)) == hash_of(make_trial(2.0))
    assert hash_of(make_trial(2.0)) != hash_of(make_trial(2.1))
    running = make_trial(outcome="running")
    assert hash_of(make_trial(2.0), running) == hash_of(make_trial(2.0))


def test_a_file_that_is_not_a_best_config_is_refused(tmp_path):
    (tmp_path / "config.yaml").write_text("model: {name: x}\n")
    with pytest.raises(ResultsError, match="no section lora, training"):
        read_best_config(tmp_path)


def test_a_tokenizer_goes_along_and_stays(make_trial, make_study, tmp_path):
    study = make_study(make_trial(2.0), context={"chat_template": "{{ messages }}"})
    write_adapter(tmp_path, 0)
    saved = tmp_path / "saved"
    (saved / "additional_chat_templates").mkdir(parents=True)
    names = ["tokenizer_config.json", "tokenizer.json", "chat_template.jinja"]
    names.append("additional_chat_templates/rag.jinja")
    for name in (*names, "other.txt"):
        (saved / name).write_text(name)
    best = write_best(study, tmp_path, tokenizer=saved)
    assert all((best / name).read_text() == name for name in names)
    assert not (best / "other.txt").exists()
    (best / "merged").mkdir()
    inode = best.stat().st_ino
    assert write_best(study, tmp_path).stat().st_ino == inode  # as a command does that loads no tokenizer
    assert (best / "merged").is_dir()
    (saved / "chat_template.jinja").write_text("another")
    write_best(study, tmp_path, tokenizer=saved)
    assert (best / "chat_template.jinja").read_text() == "another"
    assert read_best_config(best)["data"]["chat_template"] == "{{ messages }}"


def test_layers_are_named_where_all_linear_would_mean_more_of_them(make_trial, make_study):
    """As in a vision-language model: peft would add adapters to its vision tower too."""
    saved = {"target_modules": ["k_proj", "q_proj"]}
    trial = make_trial(2.0)
    same = best_config(make_study(trial), adapter_config=saved)
    assert same["lora"]["target_modules"] == "all-linear"
    context = {"layers_without_adapter": ["fc1"]}
    fewer = best_config(make_study(trial, context=context), adapter_config=saved)
    assert fewer["lora"]["target_modules"] == ["k_proj", "q_proj"]
