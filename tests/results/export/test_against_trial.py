"""The exported scripts, run with the real TRL and transformers, against the trial they were exported from."""

from __future__ import annotations

import json
import math
import runpy
import sys

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM
from trl import DatasetMixtureConfig, ModelConfig, ScriptArguments, SFTConfig, TrlParser

from lora_runner.base.load_model import BaseSpec, load_base
from lora_runner.config import TrialConfig
from lora_runner.data import DataSpec, load_data
from lora_runner.pack.options import PackOptions
from lora_runner.pack.pack import Pack
from lora_runner.protocol import Assignment, SessionOptions
from lora_runner.session import Session
from results.best import best_config
from results.export.facts import FACTS
from results.export.registry import export

RECORDS = [
    {"prompt": f"color {word} is: ", "completion": f"{word} {number}"}
    for number in range(3)
    for word in ("red", "green", "blue", "black")
]
# Every step sees all records, so their order does not matter. Of the first two losses no weight that was
# drawn takes part: LoRA starts at zero, and the first update has the factor 0 of the warmup.
STEPS, SAME = 10, 2
TRIAL = TrialConfig(
    learning_rate=2e-3,
    embedding_learning_rate=1e-3,
    lr_scheduler_type="cosine",
    warmup_steps=1,
    max_steps=STEPS,
    per_device_train_batch_size=6,
    gradient_accumulation_steps=2,
    weight_decay=0.01,
    max_grad_norm=1.0,
    adam_beta2=0.99,
    lora_r=8,
    lora_alpha=16,
    use_rslora=True,
    seed=3,
)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    file = tmp_path_factory.mktemp("records") / "träin data.jsonl"
    file.write_text("".join(json.dumps(record) + "\n" for record in RECORDS))
    other = file.with_name("eval.jsonl")
    # A record of the evaluation set is never trained on; these differ from all of them.
    other.write_text(json.dumps({"prompt": "color pink is: ", "completion": "pink 7"}) + "\n")
    return file, other


@pytest.fixture(scope="module")
def trial(tiny_model, data, tmp_path_factory):
    """Losses of our own trial at every step, and its evaluation losses."""
    base = load_base(BaseSpec(model=str(tiny_model("llama")), compute_dtype="float32"))
    bundle = load_data(DataSpec(train=str(data[0]), eval=str(data[1]), max_length=64), base.tokenizer)
    assert len(bundle.train) == len(RECORDS)
    every = tuple(math.ceil(100 * (step + 1) / STEPS) for step in range(STEPS))
    session = Session(
        Pack(base, PackOptions(train_embeddings=True)),
        bundle,
        SessionOptions(report_at=every, sample_tokens=0),
        num_seats=1,
    )
    folder = str(tmp_path_factory.mktemp("trial"))
    session.start_trial(0, Assignment(number=0, config=TRIAL, folder=folder))
    reports = []
    while session.trials:
        reports += session.advance()
    assert [report.step for report in reports] == list(range(1, STEPS + 1))
    return [report.train_loss for report in reports], [report.eval_loss for report in reports]


@pytest.fixture
def config(tiny_model, data, make_trial, make_study):
    made = make_trial(2.0, lr=TRIAL.learning_rate, ratio=0.5, scheduler="cosine")
    made.user_attrs["config"] |= TRIAL.to_dict()
    made.user_attrs["num_steps"] = STEPS
    context = {
        "model": str(tiny_model("llama")),
        "compute_dtype": "float32",
        "max_length": 64,
        "data": {"train": str(data[0]), "eval": str(data[1])},
    }
    return best_config(make_study(made, context=context))


def run(monkeypatch, folder, *arguments):
    monkeypatch.setattr(sys, "argv", ["train.py", *arguments])
    monkeypatch.chdir(folder)
    runpy.run_path(str(folder / "train.py"), run_name="__main__")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("target", ["transformers", "trl"])
def test_a_script_starts_where_the_trial_did_and_ends_near_it(
    config, trial, tmp_path, monkeypatch, capsys, target
):
    assert export(target, config, None, tmp_path, strict=True).lossy == []
    run(monkeypatch, tmp_path)
    state = json.loads((tmp_path / "output" / "trainer_state.json").read_text())
    losses = [entry["loss"] for entry in state["log_history"] if "loss" in entry]
    expected, held_out = trial
    assert len(losses) == STEPS
    assert losses[:SAME] == pytest.approx(expected[:SAME], rel=1e-5)
    assert expected[-1] < 0.95 * expected[0]
    # From here on the adapters differ by their random first weights.
    assert losses == pytest.approx(expected, rel=0.01)
    printed = float(capsys.readouterr().out.split("eval_loss ")[1].split()[0])
    assert printed == pytest.approx(held_out[-1], rel=0.01)
    rates = [
        json.loads(line)["rates"] for line in (tmp_path / "output" / "rates.jsonl").read_text().splitlines()
    ]
    assert rates[1] == pytest.approx([2e-3, 1e-3])
    assert rates[0] == [0.0, 0.0]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_trl_keeps_the_trained_embeddings_in_float32(config, tiny_model, tmp_path, monkeypatch):
    """SFTTrainer rounds what is trained on a 4-bit base to bfloat16; a rate of 1e-6 would be lost in that."""
    config["training"] |= {"embedding_learning_rate": 1e-6, "warmup_steps": 0}
    config["quantization"]["bnb_4bit_compute_dtype"] = "bfloat16"
    export("trl", config, None, tmp_path)
    run(monkeypatch, tmp_path)
    saved = load_file(tmp_path / "output" / "adapter_model.safetensors")
    assert {tensor.dtype for tensor in saved.values()} == {torch.float32}
    (embedding,) = (tensor for name, tensor in saved.items() if "embed_tokens" in name)
    base = AutoModelForCausalLM.from_pretrained(tiny_model("llama"), dtype=torch.bfloat16)
    moved = (embedding - base.get_input_embeddings().weight.detach().float()).abs().max()
    assert 2e-6 < float(moved) < STEPS * 1e-6


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_trl_trains_the_rows_of_a_few_tokens(config, tmp_path, monkeypatch):
    config["lora"] |= {"modules_to_save": [], "trainable_token_indices": [98, 101]}
    embeddings = ("trainable_token_indices", "trained_embeddings_dtype", "embedding_learning_rate")
    only = [fact.description for fact in FACTS if fact.name in (*embeddings, "held_out")]
    assert export("trl", config, None, tmp_path, strict=True).lossy == []
    head = (tmp_path / "sft_config.yaml").read_text().split("\noutput_dir")[0]
    # ModelConfig has no key for them.
    assert f"but by train.py: {', '.join(only)}." in head
    run(monkeypatch, tmp_path)
    saved = load_file(tmp_path / "output" / "adapter_model.safetensors")
    assert sorted(len(tensor) for name, tensor in saved.items() if "lora" not in name) == [2]


def parse(path):
    kinds = (ScriptArguments, SFTConfig, ModelConfig, DatasetMixtureConfig)
    return TrlParser(kinds).parse_args_and_config(["--config", str(path)])


# TRL's own default sets it too.
OLD_NAME = pytest.mark.filterwarnings("ignore:`gradient_checkpointing` is deprecated:FutureWarning")


@OLD_NAME
@pytest.mark.parametrize("format", ["prompt_completion", "messages", "sharegpt", "text"])
def test_trl_parses_the_settings_and_refuses_what_it_does_not_know(config, tmp_path, format):
    config["data"]["format"] = format
    config["model"]["revision"] = "v1.0"
    export("trl", config, None, tmp_path)
    file = tmp_path / "sft_config.yaml"
    _, args, model, mixture = parse(file)
    assert (args.learning_rate, args.warmup_steps, args.max_steps) == (2e-3, 1, STEPS)
    assert (args.per_device_train_batch_size, args.gradient_accumulation_steps) == (6, 2)
    assert (args.adam_beta2, args.weight_decay, args.seed, args.max_length) == (0.99, 0.01, 3, 64)
    assert (args.bf16, args.packing, args.trust_remote_code) == (False, False, False)
    assert (model.lora_r, model.lora_alpha, model.use_rslora) == (8, 16, True)
    assert (model.dtype, model.load_in_4bit, model.use_bnb_nested_quant) == ("float32", True, True)
    assert (model.lora_target_modules, model.model_revision) == ("all-linear", "v1.0")
    assert model.lora_modules_to_save == ["embed_tokens", "lm_head"]
    assert args.completion_only_loss is (True if format == "prompt_completion" else None)
    assert args.assistant_only_loss is (format == "messages")
    # TRL reads neither ShareGPT roles nor anything it has no loader for: only the script does.
    assert [entry.data_files for entry in mixture.datasets] == (
        [] if format == "sharegpt" else [config["data"]["train"]]
    )
    file.write_text(file.read_text() + "warmup_ratio: 0.1\n")
    with pytest.raises(ValueError, match="warmup_ratio"):
        parse(file)


def test_older_trl_gets_the_keys_it_knows(config, tmp_path):
    export("trl", config, None, tmp_path / "new", target_version="1.16")
    export("trl", config, None, tmp_path / "old", target_version="0.18.2")
    new, old = ((tmp_path / name / "sft_config.yaml").read_text() for name in ("new", "old"))
    assert "\ndtype: float32\n" in new
    assert "\ntorch_dtype: float32\n" in old
    assert "\ndatasets:\n" in new
    assert "datasets" not in old
    assert "DatasetMixtureConfig" not in (tmp_path / "old" / "train.py").read_text()


@OLD_NAME
def test_trl_itself_reads_the_records_of_the_settings(config, tmp_path):
    """What `trl sft --config` would train on: the file, with prompts that carry no loss."""
    from trl import get_dataset

    export("trl", config, None, tmp_path)
    *_, mixture = parse(tmp_path / "sft_config.yaml")
    read = get_dataset(mixture)["train"]
    assert read.to_list() == RECORDS
