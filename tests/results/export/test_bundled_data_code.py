"""The data code beside an exported script: the sweep's own, and needing nothing else of the project."""

from __future__ import annotations

import json
import runpy
import subprocess
import sys
from argparse import Namespace

import pytest
from transformers import AutoTokenizer

from lora_runner.data import DataSpec, load_data
from results.best import best_config
from results.errors import ExportError
from results.export import bundled_data_code
from results.export.registry import export

ASK = """
import sys
OURS = ("files_and_text", "lora_runner", "search_spaces", "results", "sweeps")
sys.modules |= dict.fromkeys((*OURS, "torch", "ray", "optuna", "transformers"))
import qlora_data
spec = qlora_data.DataSpec(train="no such.jsonl")
try:
    qlora_data.read_records(spec.train)
except qlora_data.DataError as error:
    print(error)
"""


@pytest.fixture
def records(tmp_path):
    file = tmp_path / "records.jsonl"
    lines = [json.dumps({"prompt": f"add {n % 30} ", "completion": f"is {n % 30 + 1}"}) for n in range(40)]
    file.write_text("\n".join(lines))
    return file


@pytest.fixture
def config(make_trial, make_study, tiny_model):
    return best_config(make_study(make_trial(2.0), context={"model": str(tiny_model("llama"))}))


def test_the_folder_needs_nothing_else_of_the_project(config, tmp_path):
    export("transformers", config, None, tmp_path / "out")
    run = subprocess.run([sys.executable, "-c", ASK], cwd=tmp_path / "out", capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert "no such file or folder" in run.stdout


def test_data_code_that_needs_more_of_the_runner_is_refused():
    text = "from lora_runner.data.chat.chat_renderer import CHATML\nimport lora_runner.pack.pack\n"
    rule = r"lora_runner/data/x\.py imports lora_runner\.pack\.pack, which is not bundled"
    with pytest.raises(ExportError, match=rule):
        bundled_data_code.with_renamed_imports(text, "lora_runner/data/x.py")


def test_what_the_data_code_imports_is_carried_and_nothing_else(monkeypatch, tmp_path):
    files = {
        "lora_runner/errors.py": "import errno\n",
        "lora_runner/files.py": "import os\n",
        "lora_runner/data/__init__.py": "from lora_runner.data.records.a import x\n",
        "lora_runner/data/records/a.py": "def x():\n    from files_and_text.first import y\n",
        "files_and_text/__init__.py": "",
        "files_and_text/first.py": "from files_and_text.second import y\n",
        "files_and_text/second.py": "from lora_runner.errors import DataError\n",
        "files_and_text/unused.py": "import yaml\n",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(bundled_data_code, "_folder", lambda package: tmp_path / package)
    carried = bundled_data_code.bundled_data_code.__wrapped__()
    lines = {name.removeprefix("qlora_data/"): text.partition("\n")[2] for name, text in carried.items()}
    assert lines == {
        "__init__.py": "from qlora_data.records.a import x\n",
        "errors.py": "import errno\n",
        "records/a.py": "def x():\n    from qlora_data.files_and_text.first import y\n",
        "files_and_text/__init__.py": "",
        "files_and_text/first.py": "from qlora_data.files_and_text.second import y\n",
        "files_and_text/second.py": "from qlora_data.errors import DataError\n",
    }


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "selection",
    [
        {"eval_fraction": 0.3, "seed": 5, "max_eval_examples": 4},
        {"eval_fraction": 0.05, "max_train_examples": 7, "max_eval_examples": None},
    ],
)
def test_the_script_holds_out_and_draws_what_the_sweep_did(config, records, tmp_path, capsys, selection):
    tokenizer = AutoTokenizer.from_pretrained(config["model"]["name"])
    spec = DataSpec(train=str(records), max_length=512, **selection)
    ours = load_data(spec, tokenizer)
    config["data"] |= {"train": spec.train, "eval": None, **selection}
    config["data"] |= {"train_digest": ours.train.digest, "eval_digest": ours.eval.digest}
    assert export("transformers", config, None, tmp_path / "out", strict=True).lossy == []
    script = runpy.run_path(str(tmp_path / "out" / "train.py"))
    asked = Namespace(
        train=script["TRAIN_DATA"], eval=script["EVAL_DATA"], chat_template=script["CHAT_TEMPLATE"]
    )
    train, held_out = script["load_sets"](asked, tokenizer)
    assert [one["labels"] for one in train] == [list(one.labels) for one in ours.train.examples]
    assert [one["input_ids"] for one in held_out] == [list(one.input_ids) for one in ours.eval.examples]
    said = capsys.readouterr().err
    assert f"{len(train)} training examples; token for token those of the sweep" in said
    assert f"{len(held_out)} evaluation examples; token for token those of the sweep" in said
    records.write_text(records.read_text() + '\n{"prompt": "a new one ", "completion": "added"}')
    script["load_sets"](asked, tokenizer)
    assert "warning: their tokens or labels are not those of the sweep" in capsys.readouterr().err
