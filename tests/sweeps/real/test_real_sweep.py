"""The sweep of `make real`: its records, its comparison with peft."""

from __future__ import annotations

import functools
import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from lora_runner.base.load_model import BaseSpec, load_tokenizer
from lora_runner.config import TrialConfig
from lora_runner.data import DataSpec, load_data
from results.verdict.verdict import verdict
from search_spaces import DEFAULT_LABEL
from sweeps.demo.docstring_dataset import DocstringRecord, cached_dataset
from sweeps.errors import SweepFailed
from sweeps.real import real_sweep
from sweeps.real.compare_with_peft import LossPair, evaluate_with_peft, train_with_both
from sweeps.real.conversations import conversation
from sweeps.real.model_check import ModelCheck
from sweeps.real.real_sweep import check_equal, real_config
from sweeps.real.result_page import kept_trials, page
from tests.results.conftest import answer_of, study, trial

ROOT = Path(__file__).parents[3]


def test_make_real_ends_in_the_module() -> None:
    dry = subprocess.run(
        ["make", "--no-print-directory", "--dry-run", "real"], cwd=ROOT, capture_output=True, text=True
    )
    assert dry.stdout.splitlines()[-1].strip() == ".venv/bin/python -m sweeps.real"


def test_a_record_becomes_a_question_and_its_answer() -> None:
    record = DocstringRecord(prompt='# a.py\ndef f(x):\n    """', completion="Return x twice, one by one.")
    question, answer = conversation(record)["messages"]
    assert question["content"].endswith("\n\n```python\n# a.py\ndef f(x):\n```")
    assert answer == {"role": "assistant", "content": "Return x twice, one by one."}


def test_the_sweep_file_is_valid(
    tiny_model: Callable[..., Path], sources: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(real_sweep, "cached_dataset", functools.partial(cached_dataset, source_root=sources))
    shutil.copytree(tiny_model("llama"), tmp_path / "model")
    config = real_config(tmp_path / "model", trials=3, max_steps=5, output=tmp_path / "runs")
    assert (config.trials, config.training.max_steps, config.seats) == (3, 5, 4)
    assert config.data.eval is not None
    records = [
        json.loads(line)
        for path in (config.data.train, config.data.eval)
        for line in Path(path).read_text().splitlines()
    ]
    assert len(records) == 12
    assert {*records[0]} == {"messages"}


@pytest.mark.slow
def test_a_pack_and_peft_train_alike_from_one_adapter(
    tiny_model: Callable[..., Path], tmp_path: Path
) -> None:
    spec = BaseSpec(model=str(tiny_model("llama")))
    rows = [{"prompt": f"{n} and {n}", "completion": f" is {2 * n}"} for n in range(12)]
    file = tmp_path / "train.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    data = load_data(DataSpec(train=str(file), max_length=64, eval_fraction=0.3), load_tokenizer(spec))
    config = TrialConfig(
        learning_rate=1e-2, max_steps=4, warmup_steps=1, per_device_train_batch_size=2, lora_r=8
    )
    pairs = train_with_both(spec, config, data, steps=4, folder=tmp_path / "start")
    check_equal(pairs)
    assert len({pair.ours for pair in pairs}) == 4
    untouched, adapted = evaluate_with_peft(spec, tmp_path / "start", data)
    assert untouched == pytest.approx(adapted, rel=1e-6)  # B is zero before the first step


def test_figures_that_differ_are_refused() -> None:
    check_equal([LossPair("a", 2.0, 2.0001)])
    with pytest.raises(SweepFailed, match=r"b: 2\.000000 here, 2\.001000 with transformers and peft"):
        check_equal([LossPair("a", 2.0, 2.0), LossPair("b", 2.0, 2.001)])
    with pytest.raises(SweepFailed, match="c: nan"):
        check_equal([LossPair("c", float("nan"), 2.0)])


def test_the_page_holds_losses_and_both_sides() -> None:
    of = study(trial(3.5227, label=DEFAULT_LABEL), trial(3.04727, lr=4.92e-4), base=4.33863)
    pairs = [LossPair("untouched base, evaluation", 4.33863, 4.338634)]
    said = page(verdict(of), answer_of(of), ModelCheck(18.74, "Paris."), pairs, command="make real")
    for line in (
        "    make real",
        "| untouched base | 4.339 |  |",
        "| guideline default (trial 0) | 3.523 | 2e-4 |",
        "| best (trial 1) | 3.047 | 4.92e-4 |",
        "| untouched base, evaluation | 4.338630 | 4.338634 | 0.00009% |",
    ):
        assert line in said.splitlines()


def test_trials_are_kept_without_times_and_places() -> None:
    trials = pd.DataFrame({"number": [0], "eval_loss": [2.5], "started": ["now"], "folder": ["trials/0000"]})
    assert kept_trials(trials) == "number,eval_loss\n0,2.5\n"
