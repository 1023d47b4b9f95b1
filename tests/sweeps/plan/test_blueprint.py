"""The blueprint: what is decided before a sweep starts."""

from __future__ import annotations

import json
import math
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors import safe_open
from transformers import AutoModelForCausalLM, AutoTokenizer, Mamba2Config

from lora_runner.errors import DataError, ModelError
from search_spaces import SearchSpace
from sweeps.config import load_sweep
from sweeps.errors import ConfigError
from sweeps.plan.blueprint import Blueprint
from sweeps.plan.build_blueprint import build_blueprint
from sweeps.plan.specs import StudySpec
from sweeps.sweep import Sweep

MakeStudySpec = Callable[..., StudySpec]
Draw = Callable[..., Blueprint]


@pytest.fixture
def base_study_spec(study_spec: MakeStudySpec, tmp_path: Path) -> StudySpec:
    return study_spec(tmp_path)


# --- a trial's configuration ----------------------------------------------------------------------


def test_rates_and_warm_up_follow_from_the_parameters(base_study_spec: StudySpec) -> None:
    config = base_study_spec.trial_config(
        {
            "learning_rate": 4e-4,
            "embedding_lr_ratio": 0.25,
            "lr_scheduler_type": "cosine",
            "warmup_ratio": 0.031,
        }
    )
    assert config.learning_rate == 4e-4
    assert config.embedding_learning_rate == 1e-4
    assert config.lr_scheduler_type == "cosine"
    assert (config.max_steps, config.warmup_steps) == (100, 4)  # 3.1 steps, rounded up as transformers does
    assert config.per_device_train_batch_size == 8
    assert config.lora_r == 8


@pytest.mark.parametrize(("ratio", "steps"), [(0.0, 0), (0.001, 1), (0.03, 3), (0.5, 50), (1.0, 100)])
def test_warm_up_is_a_whole_number_of_steps_rounded_up(
    base_study_spec: StudySpec, ratio: float, steps: int
) -> None:
    config = base_study_spec.trial_config(
        {"learning_rate": 1e-4, "lr_scheduler_type": "linear", "warmup_ratio": ratio}
    )
    assert config.warmup_steps == steps == math.ceil(100 * ratio)


def test_dimensions_that_do_not_exist_leave_the_constants(base_study_spec: StudySpec) -> None:
    config = base_study_spec.trial_config({"learning_rate": 1e-4, "lr_scheduler_type": "constant"})
    assert config.embedding_learning_rate is None
    assert config.warmup_steps == 0
    assert config.weight_decay == 0.0


@pytest.mark.parametrize(("batch", "steps"), [(8, 100), (4, 200), (16, 50), (3, 267), (1000, 1)])
def test_a_searched_batch_size_keeps_the_number_of_examples(
    base_study_spec: StudySpec, batch: int, steps: int
) -> None:
    config = base_study_spec.trial_config(
        {
            "learning_rate": 1e-4,
            "lr_scheduler_type": "linear",
            "warmup_ratio": 0.1,
            "per_device_train_batch_size": batch,
        }
    )
    assert (config.per_device_train_batch_size, config.max_steps) == (batch, steps)
    assert config.warmup_steps == math.ceil(0.1 * steps)
    if batch <= 16:
        assert config.max_steps * batch == pytest.approx(800, abs=batch / 2)


def test_searched_lora_and_decay_replace_the_constants_and_schedulers_get_their_arguments(
    study_spec: MakeStudySpec, tmp_path: Path
) -> None:
    base = study_spec(tmp_path)
    with_arguments = StudySpec(
        **{**vars(base), "scheduler_kwargs": {"cosine_with_min_lr": {"min_lr_rate": 0.2}}}
    )
    searched = {"lora_r": 64, "lora_alpha": 32, "lora_dropout": 0.1, "weight_decay": 0.01}
    config = with_arguments.trial_config(
        {"learning_rate": 1e-4, "lr_scheduler_type": "cosine_with_min_lr", **searched}
    )
    assert {name: getattr(config, name) for name in searched} == searched
    assert config.lr_scheduler_kwargs == {"min_lr_rate": 0.2}
    other = with_arguments.trial_config({"learning_rate": 1e-4, "lr_scheduler_type": "linear"})
    assert other.lr_scheduler_kwargs == {}


def test_a_study_spec_travels_between_processes(base_study_spec: StudySpec) -> None:
    assert pickle.loads(pickle.dumps(base_study_spec)) == base_study_spec


# --- drawing up a sweep over a tiny model ---------------------------------------------------------

SWEEP = """\
name: small
model: {model}
data: {{train: data.jsonl, eval_fraction: 0.2, max_length: 32}}
train_embeddings: true
training: {{max_steps: 10, per_device_train_batch_size: 4}}
lora: {{r: 4, alpha: 8}}
trials: 6
"""


@pytest.fixture
def draw(tmp_path: Path, tiny_model: Callable[..., Path]) -> Draw:
    """`draw(**{"trials": 3})`: the blueprint of a small sweep with these overrides; "__" is "." in a key."""
    records = [{"prompt": f"w{i}:", "completion": f"word{i}"[::-1]} for i in range(60)]
    (tmp_path / "data.jsonl").write_text("".join(json.dumps(r) + "\n" for r in records))
    (tmp_path / "other.jsonl").write_text("".join(json.dumps(r) + "\n" for r in records[1:]))
    (tmp_path / "s.yaml").write_text(SWEEP.format(model=tiny_model("llama")))

    def draw(**overrides: Any) -> Blueprint:
        return build_blueprint(
            load_sweep(
                tmp_path / "s.yaml",
                overrides={"output": str(tmp_path / "runs")}
                | {key.replace("__", "."): value for key, value in overrides.items()},
                environ={},
            )
        )

    return draw


def test_layers_that_get_no_adapter_are_recorded_for_exports(
    draw: Draw, tmp_path: Path, tiny_model: Callable[..., Path]
) -> None:
    assert draw().study_spec.context["layers_without_adapter"] == []
    folder = tmp_path / "mamba"
    model = Mamba2Config(
        vocab_size=256,
        hidden_size=32,
        num_hidden_layers=2,
        state_size=4,
        num_heads=4,
        head_dim=16,
        n_groups=1,
        pad_token_id=1,
    )
    AutoModelForCausalLM.from_config(model).save_pretrained(folder)
    AutoTokenizer.from_pretrained(tiny_model("llama")).save_pretrained(folder)
    context = draw(model__name=str(folder), train_embeddings=False).study_spec.context
    assert context["layers_without_adapter"] == ["out_proj"]


def test_a_blueprint_holds_what_is_counted_from_model_and_data(draw: Draw, tmp_path: Path) -> None:
    blueprint = draw()
    study_spec = blueprint.study_spec
    assert len(blueprint.data.train) + 12 == 60
    with safe_open(Path(blueprint.config.model.name) / "model.safetensors", "pt") as weights:
        saved = sum(math.prod(weights.get_slice(name).get_shape()) for name in weights.keys())  # noqa: SIM118
    assert study_spec.context["model_size"] == saved
    assert study_spec.context["max_steps"] == 10
    assert study_spec.context["compute_dtype"] == "float32"
    assert study_spec.context["num_eval_tokens"] == blueprint.data.eval.num_target_tokens > 0
    account = study_spec.context["data_account"]
    assert (account["train"]["num_used"], account["train"]["num_held_out"]) == (48, 12)
    assert account["eval"]["num_records"] == blueprint.data.eval.counts.num_used == 12
    assert (account["warnings"], account["notices"]) == ([], [])
    assert json.loads(json.dumps(account)) == account == blueprint.summary()["data"]
    assert study_spec.context["modules_to_save"] == ["embed_tokens", "lm_head"]
    assert (study_spec.context["trust_remote_code"], study_spec.context["embedding_optimizer_bits"]) == (
        False,
        32,
    )
    assert study_spec.constants["lora_r"] == 4
    assert study_spec.report_at[-1] == 100
    assert blueprint.worker_spec.seats == 6  # no more than trials
    assert blueprint.worker_spec.data.eval.digest == study_spec.context["eval_set_hash"]
    assert Path(study_spec.run_folder) == tmp_path / "runs" / "small"
    first = study_spec.space.first_trials[0]
    assert study_spec.trial_config(first.params).learning_rate == pytest.approx(2e-4)


def test_a_base_that_is_quantized_already_is_recorded_as_what_it_is(draw: Draw, tmp_path: Path) -> None:
    plain = draw()
    assert plain.study_spec.context["quantization"] == "nf4"
    assert plain.study_spec.context["quantization_config"]["bnb_4bit_use_double_quant"] is True
    folder = Path(shutil.copytree(plain.config.model.name, tmp_path / "fp4"))
    config = json.loads((folder / "config.json").read_text())
    said = {"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_quant_type": "fp4"}
    (folder / "config.json").write_text(json.dumps(config | {"quantization_config": said}))
    fp4 = draw(model__name=str(folder))
    assert fp4.study_spec.context["quantization"] == fp4.study_spec.identity["model"]["quantization"] == "fp4"
    assert fp4.study_spec.context["quantization_config"] == {
        "load_in_4bit": True,
        "bnb_4bit_quant_type": "fp4",
        "bnb_4bit_use_double_quant": False,
    }
    assert fp4.base_kind == "in FP4 with single quantization, as the base is stored"
    assert fp4.base_gib > plain.base_gib
    (folder / "config.json").write_text(json.dumps(config | {"quantization_config": {"quant_method": "awq"}}))
    with pytest.raises(ModelError, match="is quantized with AWQ"):
        draw(model__name=str(folder))


def test_a_pack_uses_graphs_unless_they_are_turned_off(draw: Draw) -> None:
    assert draw().worker_spec.pack.graphs
    assert not draw(**{"training.graphs": False}).worker_spec.pack.graphs


def test_memory_is_estimated_for_the_longest_batches_and_the_choice_has_a_reason(draw: Draw) -> None:
    blueprint = draw()
    assert 0 < blueprint.memory_gib < blueprint.memory_available_gib
    assert blueprint.worker_spec.pack.resident_weights  # it is small
    assert blueprint.memory_reason.startswith("6 seats: more would not be used; the dequantized base (")
    sizes = [(1, 1), (16, 1), (1, 12)]  # of a training and of an evaluation batch
    small, trains, evaluates = (
        draw(training__per_device_train_batch_size=train, training__per_device_eval_batch_size=held_out)
        for train, held_out in sizes
    )
    assert trains.memory_gib > small.memory_gib
    assert evaluates.memory_gib > small.memory_gib


def test_seats_that_the_sweep_file_sets_are_kept(draw: Draw) -> None:
    blueprint = draw(seats=3)
    assert blueprint.worker_spec.seats == 3
    assert blueprint.memory_reason.startswith("3 seats: as asked")


def test_without_a_gpu_workers_share_the_memory_of_one_machine(draw: Draw) -> None:
    alone, together = draw(gpus_per_worker=4, model__device_map="auto"), draw(workers=4)
    assert alone.memory_available_gib < psutil.virtual_memory().total / 2**30
    # Roughly: what is free moves while others work on this machine.
    assert 2.5 < alone.memory_available_gib / together.memory_available_gib < 6


def test_drawing_up_writes_nothing(draw: Draw, tmp_path: Path) -> None:
    before = sorted(tmp_path.rglob("*"))
    draw()
    assert sorted(tmp_path.rglob("*")) == before


def test_a_budget_in_epochs_becomes_steps(draw: Draw) -> None:
    blueprint = draw(training__max_steps=None, training__num_train_epochs=2)
    assert blueprint.study_spec.constants["max_steps"] == math.ceil(len(blueprint.data.train) / 4) * 2
    assert (
        blueprint.study_spec.identity["training"]["max_steps"] == blueprint.study_spec.constants["max_steps"]
    )


def test_the_summary_is_json_and_its_space_reads_back(draw: Draw) -> None:
    blueprint = draw()
    read = json.loads(json.dumps(blueprint.summary(), allow_nan=False))
    assert SearchSpace.from_dict(read["space"]).fingerprint() == blueprint.study_spec.space.fingerprint()
    assert read["trials"] == 6
    assert read["seats"] == 6
    assert read["first_trials"][0]["label"] == "guideline default"


@pytest.mark.parametrize(
    "changed",
    [
        {"trials": 60},
        {"seats": 2},
        {"workers": 3},
        {"storage": "sqlite:///elsewhere.db"},
        {"output": "elsewhere"},
        {"search.sampler": "random"},
        {"search.pruner": "median"},
        {"search.seed": 9},
        {"search.timeout_seconds": 60},
        {"training.per_device_eval_batch_size": 2},
        {"training.gradient_checkpointing": True},
        {"training.graphs": False},
        {"training.evaluations": 5},  # the default, written out
    ],
    ids=lambda changed: next(iter(changed)),
)
def test_how_it_is_searched_and_where_it_runs_is_not_its_identity(
    draw: Draw, changed: dict[str, Any]
) -> None:
    assert draw(**changed).study_spec.identity == draw().study_spec.identity


@pytest.mark.parametrize(
    ("changed", "field"),
    [
        ({"data.train": "OTHER"}, "train_data"),
        ({"data.seed": 1}, "eval_data"),
        ({"data.max_length": 8}, "train_data"),
        ({"training.max_steps": 12}, "training"),
        ({"training.seed": 1}, "training"),
        ({"training.weight_decay": 0.1}, "training"),
        ({"training.per_device_train_batch_size": 2}, "training"),
        ({"training.evaluations": 2}, "report_at"),
        ({"training.lr_scheduler_kwargs": {"cosine": {"num_cycles": 0.4}}}, "training"),
        ({"lora.r": 8}, "lora"),
        ({"lora.target_modules": ["q_proj"]}, "lora"),
        ({"lora.use_rslora": True}, "lora"),
        ({"space.learning_rate": {"low": 1e-5, "high": 1e-2}}, "space"),
        ({"search.include": ["lora_r"]}, "space"),
        ({"train_embeddings": False}, "train_embeddings"),
        ({"train_embeddings": {"tokens": ["a"]}}, "train_embeddings"),
        ({"model.compute_dtype": "bfloat16"}, "compute_dtype"),
        ({"model": "ANOTHER"}, "model"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else None,
)
def test_what_changes_a_trials_numbers_changes_the_identity(
    draw: Draw, tmp_path: Path, tiny_model: Callable[..., Path], changed: dict[str, Any], field: str
) -> None:
    if "data.train" in changed:
        changed = {"data.train": str(tmp_path / "other.jsonl")}
    if "model" in changed:
        changed = {"model": str(tiny_model("llama", num_hidden_layers=1))}
    ours, theirs = draw().study_spec.identity, draw(**changed).study_spec.identity
    assert ours[field] != theirs[field]
    assert (
        json.loads(json.dumps(theirs)) == theirs
    )  # so that it compares equal after a trip through the study


@pytest.mark.parametrize("given", [["<eos>", "a"], [97, 1], [1, "a", 1, "<eos>"]])
def test_tokens_become_ids_of_the_model(
    draw: Draw, tiny_model: Callable[..., Path], given: list[str | int]
) -> None:
    # <eos> pads too: only a tied output layer trains it.
    tied = str(tiny_model("llama", tie_word_embeddings=True))
    blueprint = draw(train_embeddings={"tokens": given}, model=tied)
    assert blueprint.worker_spec.pack.trainable_token_indices == (1, 97)
    assert not blueprint.worker_spec.pack.train_embeddings
    study_spec = blueprint.study_spec
    assert study_spec.identity["train_embeddings"] == {"tokens": [1, 97]}
    assert (study_spec.context["train_embeddings"], study_spec.context["modules_to_save"]) == (True, [])
    assert study_spec.context["trainable_token_indices"] == [1, 97]
    first = study_spec.space.first_trials[0]
    assert study_spec.trial_config(first.params).embedding_learning_rate == pytest.approx(5e-5)


def test_tokens_that_the_model_cannot_train_are_refused_with_their_lines(
    tmp_path: Path, tiny_model: Callable[..., Path]
) -> None:
    folder = shutil.copytree(tiny_model("llama"), tmp_path / "model")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|user|>"]})
    tokenizer.save_pretrained(folder)
    (tmp_path / "data.jsonl").write_text('{"prompt": "a", "completion": "b"}\n' * 20)
    tokens = "train_embeddings:\n  tokens:\n  - a\n  - <|usr|>\n  - 300\n  - <|user|>\n"
    text = SWEEP.format(model=folder).replace("train_embeddings: true\n", tokens)
    (tmp_path / "s.yaml").write_text(text)
    with pytest.raises(ConfigError) as caught:
        Sweep.load(tmp_path / "s.yaml").plan()
    unknown, beyond, without_row = map(str, caught.value.problems)
    assert unknown.startswith(f"{tmp_path / 's.yaml'}:7: train_embeddings.tokens[1] must be a token of")
    assert "got '<|usr|>'. Did you mean '<|user|>'? Its special and added tokens: <eos>, <unk>" in unknown
    assert "s.yaml:8: train_embeddings.tokens[2] must be a token id below" in beyond
    assert "the model's vocabulary of 256; got 300" in beyond
    assert "s.yaml:9: train_embeddings.tokens[3]" in without_row
    assert "'<|user|>' has id 256, and the model's vocabulary ends at 255" in without_row
    with pytest.raises(ConfigError, match=r"^override train_embeddings\.tokens: .* got 999"):
        Sweep.load(tmp_path / "s.yaml", {"train_embeddings.tokens": [999]}).plan()
    with pytest.raises(ConfigError, match=r"^train_embeddings\.tokens\[0\] .* got 999"):
        build_blueprint(load_sweep(tmp_path / "s.yaml", overrides={"train_embeddings.tokens": [999]}))


@pytest.mark.parametrize("tied", [False, True])
def test_the_padding_token_is_refused_where_peft_would_not_train_it(
    draw: Draw, tiny_model: Callable[..., Path], tied: bool
) -> None:
    folder = tiny_model("llama", tie_word_embeddings=tied)
    model = AutoModelForCausalLM.from_pretrained(folder)
    pad = model.config.pad_token_id
    peft = get_peft_model(model, LoraConfig(target_modules=["q_proj"], trainable_token_indices=[pad, 97]))
    ids = torch.tensor([[97, pad, 98, pad]])
    peft(input_ids=ids, labels=ids).loss.backward()
    (rows,) = (p for name, p in peft.named_parameters() if "trainable_tokens_delta" in name)
    assert rows.grad is not None
    trained = bool(rows.grad[0].any())
    assert bool(rows.grad[1].any())
    assert trained is tied
    if trained:
        tokens = draw(train_embeddings={"tokens": [pad, 97]}, model=str(folder)).worker_spec.pack
        assert tokens.trainable_token_indices == (pad, 97)
    else:
        with pytest.raises(ConfigError, match=r"train_embeddings.tokens\[0\] must not be the padding token"):
            draw(train_embeddings={"tokens": ["<eos>", 97]}, model=str(folder))


@pytest.fixture
def added(tmp_path: Path, tiny_model: Callable[..., Path]) -> Path:
    """A model whose tokenizer has two tokens more than the model has embeddings."""
    folder = shutil.copytree(tiny_model("llama"), tmp_path / "model")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|start|>", "<|end|>"]})
    tokenizer.chat_template = (
        "{% for m in messages %}<|start|>{{ m.role }}:{{ m.content }}<|end|>{% endfor %}"
    )
    tokenizer.save_pretrained(folder)
    return folder


def test_tokens_beyond_the_embeddings_are_refused_by_name(draw: Draw, tmp_path: Path, added: Path) -> None:
    turns = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "you"}]
    chats = [{"messages": [turns[0], turns[1] | {"content": f"you{n}"}]} for n in range(10)]
    (tmp_path / "chat.jsonl").write_text("".join(json.dumps(chat) + "\n" for chat in chats))
    with pytest.raises(DataError) as caught:
        draw(model=str(added), data__train=str(tmp_path / "chat.jsonl"))
    for fact in (
        "the model has 256 (ids 0 to 255)",
        "'<|start|>' (id 256), '<|end|>' (id 257)",
        "of 8 of 8 training sequences and 2 of 2 evaluation sequences",
        "resize_token_embeddings(258)",
    ):
        assert fact in str(caught.value), caught.value


def test_a_layer_that_would_be_trained_in_two_ways_is_refused(
    draw: Draw, tiny_model: Callable[..., Path]
) -> None:
    twice = {"lora.target_modules": ["q_proj", "lm_head"]}
    with pytest.raises(ModelError, match=r"lm_head cannot be trained in full .* choose one"):
        draw(**twice)
    tied = {"model": str(tiny_model("llama", tie_word_embeddings=True))}
    with pytest.raises(ModelError, match=r"lm_head cannot be trained by its tokens .* choose one"):
        draw(train_embeddings={"tokens": ["a"]}, **twice, **tied)
    draw(train_embeddings={"tokens": ["a"]}, **twice)


def test_data_that_cannot_be_trained_on_is_refused_with_its_place(draw: Draw, tmp_path: Path) -> None:
    with (tmp_path / "data.jsonl").open("a") as file:
        file.write('{"foo": 1}\n')
    with pytest.raises(DataError, match=r"data\.jsonl:61: "):
        draw()


def test_a_model_that_cannot_be_read_is_refused(
    draw: Draw, tmp_path: Path, tiny_model: Callable[..., Path]
) -> None:
    copy = shutil.copytree(tiny_model("llama"), tmp_path / "broken")
    (copy / "config.json").write_text('{"model_type": "nonesuch"}')
    with pytest.raises(ModelError, match="configuration of"):
        draw(model=str(copy))
