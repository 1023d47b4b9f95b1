"""The records that an export writes are those that the sweep used."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from lora_runner.base.load_model import load_tokenizer
from lora_runner.data import load_data
from lora_runner.data.train_eval_split import split_records
from sweeps import Sweep
from sweeps.plan.build_blueprint import base_spec
from tests.sweeps.cli.conftest import SWEEP as SWEEP
from tests.sweeps.cli.conftest import folder as folder
from tests.sweeps.cli.conftest import ran as ran

DATA = "data: {train: data.jsonl, eval_fraction: 0.2, max_length: 32}"
DRAWN = DATA.replace("}", ", max_eval_examples: 5, max_train_examples: 20, seed: 3}")


@pytest.fixture
def sweep(folder: Path, request: pytest.FixtureRequest) -> Sweep:
    """A sweep that draws its records, of which some are copies, empty or too long to have a loss."""
    records = [{"prompt": f"w{i % 40}:", "completion": f"word{i % 40}"[::-1], "id": i} for i in range(60)]
    records += [{"prompt": "empty", "completion": " "}]
    records += [{"prompt": f"long {i}" * 90, "completion": "lost"} for i in range(30)]
    (folder / "data.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    text = SWEEP.format(model="model")
    assert DATA in text
    (folder / "s.yaml").write_text(text.replace(DATA, DRAWN))
    loaded: Sweep = Sweep.load(request.getfixturevalue("ran"))
    return loaded


def test_what_is_written_has_the_tokens_of_the_trials_in_their_order(sweep: Sweep, tmp_path: Path) -> None:
    spec, tokenizer = sweep.config.data, load_tokenizer(base_spec(sweep.config))
    trials = load_data(spec, tokenizer)
    assert trials.eval.digest == sweep.study().user_attrs["context"]["eval_set_hash"]
    order = [example.fields for example in split_records(spec)[1].order]
    kept = [record for record in order if not record["prompt"].startswith("long")]
    assert len(kept) < len(order)  # some have no loss within max_length
    for target in ("axolotl", "llama-factory"):
        out = tmp_path / target
        result = sweep.export(target, out)
        assert not [note for note in result.notes if "could not be written" in note]
        written = replace(
            spec,
            train=str(out / "train.jsonl"),
            eval=str(out / "eval.jsonl"),
            max_train_examples=None,
            max_eval_examples=None,
        )
        read = load_data(written, tokenizer)
        assert (read.train.digest, read.eval.digest) == (trials.train.digest, trials.eval.digest)
        # `load_data` orders evaluation records itself: the file has that order already.
        lines = (out / "eval.jsonl").read_text(encoding="utf-8").splitlines()
        columns = ("prompt", "completion")
        assert [json.loads(line) for line in lines] == [{k: record[k] for k in columns} for record in kept]


def test_records_that_changed_since_are_not_written_and_that_is_said(sweep: Sweep, tmp_path: Path) -> None:
    source = Path(sweep.config.data.train)
    source.write_text(source.read_text().replace("drow", "row"))
    result = sweep.export("axolotl", tmp_path)
    assert not (tmp_path / "eval.jsonl").exists()
    (said,) = (note for note in result.notes if "could not be written" in note)
    assert "records are not those of the sweep any more" in said
    settings = yaml.safe_load((tmp_path / "axolotl.yaml").read_text())
    assert settings["datasets"][0]["path"] == str(source)
    assert any("held out are trained on too" in line for line in result.lossy)
