"""The exported training script, run for a few steps with the real libraries."""

from __future__ import annotations

import json
import os
import runpy
import subprocess
import sys

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig

from lora_runner.data.records.convert import convert
from lora_runner.data.records.read_files import read_records
from lora_runner.data.tokens.tokenize import tokenize
from results.best import best_config
from results.export.registry import export

STEPS, WARMUP = 3, 1

TEMPLATE = (
    "{% for message in messages %}<{{ message.role }}>{{ message.content }}{{ eos_token }}\n{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)
_TURNS = [
    ("system", "Be brief."),
    ("user", "Name a color."),
    ("assistant", "red"),
    ("user", "Another."),
    ("assistant", "blue"),
]
RECORDS = {
    "prompt_completion": [
        {"prompt": "one plus one is ", "completion": "two"},
        {"prompt": "a prompt that fills the room ", "completion": "and an answer that is cut at the end"},
        {"prompt": "hello", "completion": [{"role": "assistant", "content": "good day"}]},
    ],
    "alpaca": [
        {"instruction": "Add.", "input": "1 and 1", "output": "2"},
        {"instruction": "Greet.", "output": "hi", "system": "You greet.", "history": [["who", "me"]]},
    ],
    "text": [{"text": "only a text"}, {"text": "another one"}],
    "messages": [
        {"messages": [{"role": role, "content": content} for role, content in _TURNS]},
        {"messages": [{"role": "user", "content": "hm"}, {"role": "assistant", "content": "no", "weight": 0},
                      {"role": "user", "content": "so"}, {"role": "assistant", "content": "yes"}]},
    ],
    "sharegpt": [
        {"system": "Be kind.",
         "conversations": [{"from": "human", "value": "hi"}, {"from": "gpt", "value": "hello"}]},
    ],
}  # fmt: skip


@pytest.fixture(scope="module")
def records():
    words = ["red", "green", "blue", "black", "white"]
    return [
        {"prompt": f"color {word} is: ", "completion": f"{word} {number}"}
        for number in range(4)
        for word in words
    ]


def make_config(base, make_trial, make_study, **context):
    trial = make_trial(2.0, lr=1e-3, ratio=0.25)
    trial.user_attrs["config"] |= {
        "max_steps": STEPS,
        "warmup_steps": WARMUP,
        "per_device_train_batch_size": 2,
        "gradient_accumulation_steps": 2,
        "lora_r": 4,
        "lora_alpha": 8,
    }
    trial.user_attrs["num_steps"] = STEPS
    settings = {"model": str(base), "compute_dtype": "float32", "max_length": 64} | context
    return best_config(make_study(trial, context=settings))


def run_script(folder, *arguments):
    """In a process of its own, as a user runs it."""
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, "train.py", *map(str, arguments)]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=240)


def run_here(monkeypatch, folder, *arguments):
    """In this process, where the libraries are imported already."""
    monkeypatch.setattr(sys, "argv", ["train.py", *map(str, arguments)])
    monkeypatch.chdir(folder)
    runpy.run_path(str(folder / "train.py"), run_name="__main__")


def write_lines(path, records):
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def write_sets(folder, records):
    """The first record is evaluated on, the others are trained on; a copy of it is left out of these."""
    train, held_out = folder / "train.jsonl", folder / "eval.jsonl"
    return "--train", write_lines(train, records), "--eval", write_lines(held_out, records[:1])


def check_rates_and_weights(base, output, dtype):
    rates = [json.loads(line)["rates"] for line in (output / "rates.jsonl").read_text().splitlines()]
    assert len(rates) == STEPS
    # Linear: warmup over 1 step (the first update has factor 0), then down to 0 after the last of 3 steps.
    for step, pair in enumerate(rates):
        factor = step / WARMUP if step < WARMUP else (STEPS - step) / (STEPS - WARMUP)
        assert pair == pytest.approx([1e-3 * factor, 2.5e-4 * factor])
    saved = load_file(output / "adapter_model.safetensors")
    assert {tensor.dtype for tensor in saved.values()} == {torch.float32}
    embedding = next(tensor for name, tensor in saved.items() if "embed_tokens" in name)
    before = AutoModelForCausalLM.from_pretrained(base).get_input_embeddings().weight.detach()
    moved = float((embedding - before.to(dtype).float()).abs().max())
    # Adam moves a weight by about the rate at most: the embeddings' rates are 0, 2.5e-4 and 1.25e-4. At the
    # main rate, or rounded to bfloat16, they would move by four times as much, or not at all.
    assert 2.0e-4 < moved < 1.1 * 3.75e-4


@pytest.mark.slow
def test_the_exported_script_trains_both_groups_at_their_rates(
    tiny_model, records, make_trial, make_study, tmp_path
):
    base = tiny_model("llama")
    export("transformers", make_config(base, make_trial, make_study), None, tmp_path, strict=True)
    run = run_script(tmp_path, *write_sets(tmp_path, records), "--output", tmp_path / "out")
    assert run.returncode == 0, run.stderr[-3000:]
    check_rates_and_weights(base, tmp_path / "out", torch.float32)
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32, quantization_config=nf4())
    model = PeftModel.from_pretrained(model, tmp_path / "out").eval()
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    printed = float(run.stdout.split("eval_loss ")[1].split()[0])
    assert printed == pytest.approx(mean_loss(model, tokenizer, records[:1]), abs=1e-4)
    assert "19 training examples; warning: their tokens or labels are not those of the sweep" in run.stderr


@pytest.mark.filterwarnings("ignore")
def test_trained_embeddings_stay_exact_beside_a_bfloat16_base(
    tiny_model, records, make_trial, make_study, tmp_path, monkeypatch
):
    base = tiny_model("llama")
    config = make_config(base, make_trial, make_study, compute_dtype="bfloat16")
    export("transformers", config, None, tmp_path)
    run_here(monkeypatch, tmp_path, *write_sets(tmp_path, records))
    check_rates_and_weights(base, tmp_path / "output", torch.bfloat16)


@pytest.mark.filterwarnings("ignore")
def test_tied_embeddings_are_trained_as_one_weight(
    tiny_model, records, make_trial, make_study, tmp_path, monkeypatch
):
    base = tiny_model("llama", tie_word_embeddings=True)
    export("transformers", make_config(base, make_trial, make_study), None, tmp_path)
    run_here(monkeypatch, tmp_path, *write_sets(tmp_path, records))
    check_rates_and_weights(base, tmp_path / "output", torch.float32)
    saved = load_file(tmp_path / "output" / "adapter_model.safetensors")
    trained = [tensor for name, tensor in saved.items() if "embed_tokens" in name or "lm_head" in name]
    assert len(trained) == 2
    assert torch.equal(*trained)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("tied", "dtype"), [(False, "float32"), (True, "bfloat16")])
def test_a_few_tokens_are_trained_at_the_embeddings_rate(
    tiny_model, records, make_trial, make_study, tmp_path, monkeypatch, tied, dtype
):
    base = tiny_model("llama", tie_word_embeddings=tied)
    tokens = {"modules_to_save": [], "trainable_token_indices": [98, 101, 200]}
    config = make_config(base, make_trial, make_study, compute_dtype=dtype, **tokens)
    assert export("transformers", config, None, tmp_path, strict=True).lossy == []
    run_here(monkeypatch, tmp_path, *write_sets(tmp_path, records))
    rates = [
        json.loads(line)["rates"] for line in (tmp_path / "output" / "rates.jsonl").read_text().splitlines()
    ]
    assert rates[WARMUP] == pytest.approx([1e-3, 2.5e-4])
    saved = load_file(tmp_path / "output" / "adapter_model.safetensors")
    (rows,) = (tensor for name, tensor in saved.items() if "lora" not in name)
    assert rows.dtype == torch.float32
    before = AutoModelForCausalLM.from_pretrained(base).get_input_embeddings().weight.detach()
    before = before[tokens["trainable_token_indices"]].to(getattr(torch, dtype)).float()
    moved = (rows - before).abs().amax(1)
    assert 2.0e-4 < float(moved[0]) < 1.1 * 3.75e-4  # as the whole layer would, see above
    assert bool(moved[2]) is tied  # no record holds it; in a tied output layer it has a gradient all the same


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("format", ["prompt_completion", "alpaca", "text", "messages", "sharegpt"])
def test_the_script_reads_records_as_the_sweep_does(tiny_model, make_trial, make_study, tmp_path, format):
    """Token ids and labels of the script against those the trials were trained on."""
    base = tiny_model("llama")
    config = make_config(base, make_trial, make_study)
    config["data"]["format"] = format
    export("transformers", config, None, tmp_path)
    script = runpy.run_path(str(tmp_path / "train.py"))
    lines = write_lines(tmp_path / "data.jsonl", RECORDS[format])
    tokenizer = AutoTokenizer.from_pretrained(base)
    tokenizer.chat_template = TEMPLATE
    ours = script["load_examples"](str(lines), tokenizer)
    _, examples = convert(read_records(str(lines)), format)
    expected = tokenize(examples, tokenizer, source="data", max_length=64, chat_template=TEMPLATE)
    assert len(ours) == len(expected.examples) > 0
    for mine, theirs in zip(ours, expected.examples, strict=True):
        assert mine["input_ids"] == list(theirs.input_ids)
        assert mine["labels"] == list(theirs.labels)
        assert -100 in mine["labels"]
        assert any(label != -100 for label in mine["labels"])


@pytest.mark.filterwarnings("ignore")
def test_the_script_reads_tables_folders_and_templates(tiny_model, make_trial, make_study, tmp_path):
    config = make_config(tiny_model("llama"), make_trial, make_study)
    config["data"] |= {"chat_template": TEMPLATE, "train_split": "part"}
    export("transformers", config, None, tmp_path / "out", strict=True)
    script = runpy.run_path(str(tmp_path / "out" / "train.py"))
    assert script["CHAT_TEMPLATE"] == TEMPLATE
    assert script["SELECTION"]["train_split"] == "part"
    load, tokenizer = script["load_examples"], AutoTokenizer.from_pretrained(tiny_model("llama"))
    record = {"prompt": "x, y", "completion": "z"}
    (tmp_path / "a.tsv").write_text("prompt\tcompletion\nx, y\tz\n")
    (tmp_path / "set").mkdir()
    write_lines(tmp_path / "set" / "train.jsonl", [{"prompt": "one", "completion": "two"}])
    expected = load(str(write_lines(tmp_path / "set" / "test.jsonl", [record])), tokenizer)
    assert load(str(tmp_path / "a.tsv"), tokenizer) == expected
    assert load(str(tmp_path / "set"), tokenizer, "test") == expected
    assert load(str(tmp_path / "set"), tokenizer) != expected


def test_the_script_refuses_another_batch_product(tiny_model, make_trial, make_study, tmp_path, monkeypatch):
    export("transformers", make_config(tiny_model("llama"), make_trial, make_study), None, tmp_path)
    arguments = tmp_path / "training_args.yaml"
    changed = arguments.read_text().replace("accumulation_steps: 2", "accumulation_steps: 1")
    arguments.write_text(changed)
    with pytest.raises(SystemExit, match="found with 4 examples per step; here it would be 2"):
        run_here(monkeypatch, tmp_path, "--train", "missing.jsonl")


def nf4():
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.float32,
    )


@torch.no_grad()
def mean_loss(model, tokenizer, records):
    """Nats per completion token (end token included), one record at a time."""
    total, count = 0.0, 0
    for record in records:
        prompt = tokenizer(record["prompt"], add_special_tokens=False).input_ids
        target = tokenizer(record["completion"], add_special_tokens=False).input_ids
        target.append(tokenizer.eos_token_id)
        logits = model(torch.tensor([prompt + target])).logits[0, len(prompt) - 1 : -1].float()
        total += torch.nn.functional.cross_entropy(logits, torch.tensor(target), reduction="sum").item()
        count += len(target)
    return total / count
