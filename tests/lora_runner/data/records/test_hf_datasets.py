"""Hub ids and saved datasets without a network, in a process whose cache is a temporary folder."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = """
import json, sys
from pathlib import Path
from datasets import Dataset, DatasetDict
from lora_runner.data.records.hf_datasets import read_hub
from lora_runner.data.records.read_files import read_records
from lora_runner.errors import DataError

home = Path(sys.argv[1])
folder = home / "pairs"
folder.mkdir()
for split in ("train", "test"):
    (folder / f"{split}.jsonl").write_text(json.dumps({"prompt": split, "completion": "x"}) + "\\n")
data = Dataset.from_list([{"text": "a"}, {"text": "b"}])
DatasetDict({"train": data, "test": data.select([1])}).save_to_disk(str(home / "saved"))
data.save_to_disk(str(home / "one"))

def attempt(call):
    try:
        return [[r.fields, r.origin.line, r.origin.unit] for r in call()]
    except DataError as error:
        return str(error)

assert "torch" not in sys.modules and "transformers" not in sys.modules
print(json.dumps({
    "split": attempt(lambda: read_hub(str(folder), "test")),
    "no split": attempt(lambda: read_hub(str(folder), None)),
    "wrong split": attempt(lambda: read_hub(str(folder), "dev")),
    "saved": attempt(lambda: read_records(str(home / "saved"), split="test")),
    "saved, wrong split": attempt(lambda: read_records(str(home / "saved"), split="dev")),
    "one": attempt(lambda: read_records(str(home / "one"), split="train")),
    "not cached": attempt(lambda: read_records("acme/pairs", split="train")),
    "not cached, config": attempt(lambda: read_records("acme/pairs:small", split="train")),
}))
"""


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    home = tmp_path_factory.mktemp("home")
    root = Path(__file__).parents[4]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(home / "hf"), "PYTHONPATH": str(root)}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(home)],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert isinstance(found, dict)
    return found


def test_a_split_is_read_with_row_numbers(answers: dict[str, object]) -> None:
    assert answers["split"] == [[{"prompt": "test", "completion": "x"}, 1, "row"]]


def test_a_split_must_be_named_when_there_are_several(answers: dict[str, object]) -> None:
    assert "no split was named; splits: train, test" in str(answers["no split"])
    assert "dev" in str(answers["wrong split"])


def test_folders_written_by_save_to_disk(answers: dict[str, object]) -> None:
    assert answers["saved"] == [[{"text": "b"}, 1, "row"]]
    assert "there is no split 'dev'; splits: train, test" in str(answers["saved, wrong split"])
    assert answers["one"] == [[{"text": "a"}, 1, "row"], [{"text": "b"}, 2, "row"]]


@pytest.mark.parametrize("key", ["not cached", "not cached, config"])
def test_offline_without_a_cached_copy(answers: dict[str, object], key: str) -> None:
    message = str(answers[key])
    assert message.splitlines() == [
        "dataset 'acme/pairs' is not in this machine's cache, and HF_HUB_OFFLINE is set:",
        "give a local file or folder, or run `hf download acme/pairs --repo-type dataset` where there is a "
        "network.",
    ]
