"""`sweeps init` writes a file that `sweeps plan` accepts, with values that fit, and never loses another."""

from __future__ import annotations

import csv
import json
import re
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from transformers import AutoTokenizer

from files_and_text.yaml_lines import load_yaml
from lora_runner.errors import DataError, ModelError
from search_spaces import load_guidelines, space_for
from sweeps.config import SweepConfig, load_sweep, space_of
from sweeps.errors import ConfigError
from sweeps.init.choices import max_length, max_steps
from sweeps.init.defaults import default_name
from sweeps.init.facts import DataFacts, ModelFacts
from sweeps.init.file_text import GROUPS, SCHEMA_FILE
from sweeps.init.new_sweep import NewSweep, new_sweep, new_sweep_text
from sweeps.init.wanted import Wanted
from sweeps.sweep import Sweep

TABLES = load_guidelines()
SCENARIOS = TABLES.scenarios()
MODEL = ModelFacts(name="some/Model-8B", size=8e9, max_positions=4096)


def facts(lengths: Sequence[int] = range(1, 501), num_records: int = 520, **changed: Any) -> DataFacts:
    given: dict[str, Any] = {
        "format": "messages",
        "num_records": num_records,
        "num_train": num_records - 20,
        "num_held_out": 20,
        "eval_fraction": 0.05,
        "lengths": tuple(sorted(lengths)),
        "is_sample": False,
        **changed,
    }
    return DataFacts(**given)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SWEEPS_STORAGE", raising=False)
    return tmp_path


@pytest.fixture(scope="session")
def model(tiny_model: Callable[..., Path]) -> Path:
    return tiny_model("llama")


# --- the file that is written is one that runs ----------------------------------------------------


def chats(count: int, words: int = 3) -> list[dict[str, Any]]:
    return [
        {
            "messages": [
                {"role": "user", "content": f"q{n}"},
                {"role": "assistant", "content": f"a{n}" + " w" * words},
            ]
        }
        for n in range(count)
    ]


def pairs(count: int, words: int = 3) -> list[dict[str, Any]]:
    return [{"prompt": f"p{n}:", "completion": f"c{n}" + " w" * words} for n in range(count)]


def write(name: str, records: Sequence[dict[str, Any]]) -> str:
    path = Path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".csv":
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, list(records[0]))
            writer.writeheader()
            writer.writerows(records)
    else:
        path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return name


def folder_with_splits() -> str:
    write("parts/train.jsonl", pairs(60))
    write("parts/validation.jsonl", pairs(72)[60:])
    return "parts"


FORMS: dict[str, Callable[[], str]] = {
    "messages": lambda: write("chats.jsonl", chats(60)),
    "alpaca": lambda: write("a.jsonl", [{"instruction": f"i{n}", "output": f"o{n}"} for n in range(60)]),
    "text": lambda: write("t.ndjson", [{"text": f"line {n} of a text"} for n in range(60)]),
    "csv": lambda: write("c.csv", pairs(60)),
    "prompts of messages": lambda: write(
        "m.jsonl",
        [{"prompt": chat["messages"][:1], "completion": chat["messages"][1:]} for chat in chats(60)],
    ),
    "few": lambda: write("few.jsonl", pairs(3)),
    "long": lambda: write("long.jsonl", [*pairs(60), *pairs(65, words=200)[60:]]),
    "folder": folder_with_splits,
}


@pytest.mark.slow
@pytest.mark.parametrize(("form", "scenario"), list(zip(FORMS, [*SCENARIOS, *SCENARIOS], strict=False)))
def test_what_is_written_is_what_plan_accepts(form: str, scenario: str, model: Path, folder: Path) -> None:
    shutil.copytree(model, "model")
    train = FORMS[form]()
    made = new_sweep(Wanted(model="model", train=train, path=Path("sweep.yaml"), scenario=scenario))
    config = load_sweep("sweep.yaml")
    assert config == made.config
    assert config.name == f"model-on-{Path(train).stem.lower()}"
    assert config.run_folder == folder / "runs" / config.name
    Draft202012Validator(json.loads(Path(SCHEMA_FILE).read_text())).validate(load_yaml(Path("sweep.yaml"))[0])
    blueprint = made.blueprint  # `sweeps plan` builds the same from an equal config
    assert blueprint.study_spec.constants["max_steps"] == config.training.max_steps
    assert not [text for text in blueprint.data.warnings if "teach no stop" in text]
    has_chats = form in ("messages", "alpaca", "prompts of messages")
    assert (config.data.chat_template is not None) == has_chats
    assert config.data.eval_split == ("validation" if form == "folder" else None)
    assert config.data.max_length == (256 if form == "long" else 32)  # the small model's positions
    if form != "long":
        assert blueprint.data.train.counts.num_truncated == 0


@pytest.mark.parametrize("knows_chatml", [True, False])
def test_a_tokenizer_without_a_template_gets_one_that_it_can_end(
    knows_chatml: bool, model: Path, folder: Path
) -> None:
    shutil.copytree(model, "model")
    if knows_chatml:
        tokenizer = AutoTokenizer.from_pretrained("model")
        tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>"]})
        tokenizer.save_pretrained("model")
        config = json.loads(Path("model/config.json").read_text())
        assert len(tokenizer) <= config["vocab_size"] + 2
    from lora_runner.base.load_model import BaseSpec
    from lora_runner.data_spec import DataSpec
    from sweeps.init.facts import data_facts

    found = data_facts(DataSpec(train=write("chats.jsonl", chats(40))), BaseSpec(model="model"))
    assert found.stop_token == ("<|im_end|>" if knows_chatml else "<eos>")
    assert (found.chat_template == "chatml") == knows_chatml


# --- every key ------------------------------------------------------------------------------------


def text_for(wanted: Wanted | None = None, data: DataFacts | None = None) -> str:
    Path("train.jsonl").write_text('{"text": "hello"}\n')
    wanted = wanted or Wanted(model=MODEL.name, train="train.jsonl", path=Path("sweep.yaml"))
    return new_sweep_text(wanted, MODEL, data or facts(), TABLES)


def loaded(text: str) -> SweepConfig:
    Path("sweep.yaml").write_text(text)
    return load_sweep("sweep.yaml", environ={})


def test_a_key_without_its_comment_sign_changes_nothing() -> None:
    text = text_for()
    head, metric, tail = re.split(r"(\nmetric:\n.*?\n\n)", text, flags=re.DOTALL)
    uncommented = [re.sub(r"^( *)#(\w+: )", r"\1\2", part, flags=re.MULTILINE) for part in (head, tail)]
    assert sum(map(len, uncommented)) < len(head) + len(tail) - 40, "there are comment signs to take away"
    assert loaded("".join((uncommented[0], metric, uncommented[1]))) == loaded(text)
    with_metric = re.sub(r"^( *)#(\w+: )", r"\1\2", metric, flags=re.MULTILINE)
    found = loaded(head + with_metric + tail).metric
    assert found is not None
    assert (found.name, found.max_new_tokens) == ("exact_match", 32)


def test_every_key_stands_in_the_file_once() -> None:
    text = text_for()
    names = [name for group in GROUPS.values() for name in group]
    assert sorted(names) == sorted(SweepConfig.model_fields)
    for name in names:
        assert len(re.findall(rf"^#?{name}:", text, re.MULTILINE)) == 1, name
    assert max(len(line) for line in text.splitlines() if not line.startswith("  #   ")) <= 110


@pytest.mark.parametrize("scenario", SCENARIOS)
@pytest.mark.parametrize("train_embeddings", [True, False])
def test_the_file_gives_the_tables_own_space(scenario: str, train_embeddings: bool) -> None:
    config = loaded(
        text_for(
            Wanted(
                model=MODEL.name,
                train="train.jsonl",
                path=Path("sweep.yaml"),
                scenario=scenario,
                train_embeddings=train_embeddings,
            )
        )
    )
    steps = config.training.max_steps or 0
    assert (config.name, config.model.size, config.scenario) == ("model-8b-on-train", 8e9, scenario)
    assert steps == {"short": 99, "long": 1001}.get(scenario, 189)
    tables = space_for(scenario=scenario, model_size=8e9, max_steps=steps, train_embeddings=train_embeddings)
    assert space_of(config).fingerprint() == tables.fingerprint()


# --- what is chosen -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("lengths", "expected", "words"),
    [
        (range(1, 501), 512, "cuts none of 500 examples"),
        ([100] * 990 + [3000] * 10, 128, "128 cuts 10 of 1,000 examples (1.0%)"),
        ([4000] * 9 + [9000], 4096, "4,096 cuts 1 of 10 examples (10.0%); the model has 4,096 positions"),
        ([5], 32, "cuts none of 1 examples"),
    ],
)
def test_the_length_covers_nearly_all_sequences_within_the_positions(
    lengths: Sequence[int], expected: int, words: str
) -> None:
    chosen = max_length(facts(lengths), MODEL)
    assert chosen.value == expected
    assert words in chosen.reason


@pytest.mark.parametrize(
    ("num_train", "steps", "words"),
    [
        (10, 30, "24 passes over 10"),
        (500, 189, "3.0 passes over 500"),
        (2000, 500, "2 passes over 2,000"),
        (6000, 750, "1 pass over 6,000"),
        (52_000, 1000, "15% of a pass over 52,000, enough to rank learning rates"),
    ],
)
def test_the_steps_follow_from_the_number_of_examples(num_train: int, steps: int, words: str) -> None:
    chosen = max_steps(facts(num_train=num_train), 8, TABLES, "general")
    assert chosen.value == steps
    assert words in chosen.reason.replace(".0 passes over 10", " passes over 10").replace("2.0 p", "2 p")


def test_long_records_are_trained_few_at_a_time() -> None:
    config = loaded(text_for(data=facts([4000] * 50)))
    training = config.training
    assert (training.per_device_train_batch_size, training.gradient_accumulation_steps) == (4, 2)
    assert loaded(text_for(data=facts(num_train=12))).training.per_device_train_batch_size == 2


def test_names_say_model_and_data() -> None:
    assert default_name("meta-llama/Llama-3.1-8B-Instruct", "data/train.jsonl") == (
        "llama-3.1-8b-instruct-on-train"
    )
    assert default_name("a/b", "owner/set:config") == "b-on-set"
    assert len(default_name("x" * 300, "y" * 300)) <= 80


# --- bad input ------------------------------------------------------------------------------------


def test_a_file_is_replaced_only_when_asked(model: Path, folder: Path) -> None:
    write("train.jsonl", pairs(20))
    Path("sweep.yaml").write_text("mine")
    wanted = Wanted(model=str(model), train="train.jsonl", path=Path("sweep.yaml"))
    with pytest.raises(ConfigError, match="exists already; it is kept"):
        new_sweep(wanted)
    assert Path("sweep.yaml").read_text() == "mine"
    Path(SCHEMA_FILE).write_text("{}")  # of another program
    made: NewSweep = new_sweep(
        Wanted(**{**vars(wanted), "overwrite": True, "name": "mine", "trials": 5, "max_steps": 7})
    )
    assert load_sweep("sweep.yaml") == made.config
    assert (made.config.name, made.config.trials, made.config.training.max_steps) == ("mine", 5, 7)
    assert Path(SCHEMA_FILE).read_text() == "{}"
    assert "$schema" not in Path("sweep.yaml").read_text()
    assert Sweep.load("sweep.yaml").run_folder.name == "mine"


@pytest.mark.parametrize(
    ("changed", "error", "word"),
    [
        ({"train": "trian.jsonl"}, ConfigError, "Did you mean 'train.jsonl'?"),
        ({"train": "empty.jsonl"}, ConfigError, "at least one record"),
        ({"eval": "evl.jsonl"}, ConfigError, "data.eval: the file"),
        (
            {"scenario": "genral"},
            ConfigError,
            "--scenario must be one of",
        ),
        ({"model": "./gone-8b"}, ConfigError, "does not exist"),
        ({"model": "owner/not-cached"}, ModelError, "owner/not-cached"),
        ({"path": Path("gone/s.yaml")}, ConfigError, "does not exist"),
        ({"path": Path()}, ConfigError, "names a folder"),
        ({"max_steps": 0}, ConfigError, "--max-steps must be at least 1"),
        ({"trials": 0}, ConfigError, "--trials must be at least 1"),
        ({"name": "a/b"}, ConfigError, "name must be"),
        ({"train": "odd.jsonl"}, DataError, "fits no known format"),
        ({"train": "long.jsonl"}, DataError, "the model has 256 positions, and 20 of 20 examples are longer"),
    ],
)
def test_bad_input_writes_nothing(
    model: Path, folder: Path, changed: dict[str, Any], error: type[Exception], word: str
) -> None:
    write("train.jsonl", pairs(20))
    write("odd.jsonl", [{"a": 1}])
    write("empty.jsonl", [])
    write("long.jsonl", pairs(20, words=400))
    before = sorted(folder.rglob("*"))
    given = {"model": str(model), "train": "train.jsonl", "path": Path("sweep.yaml"), **changed}
    with pytest.raises(error) as caught:
        new_sweep(Wanted(**given))
    assert word in str(caught.value)
    assert "sweep.yaml" not in str(caught.value).replace("such as sweep.yaml", "")
    assert sorted(folder.rglob("*")) == before
