"""A sweep of five trials that was trained here, without Ray: a keeper and a session call each other."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from sweeps.artifacts.run_folder import write_run_folder
from sweeps.cli.main import main
from sweeps.keeper.keeper import Keeper
from sweeps.plan.blueprint import Blueprint
from sweeps.study.stages import Stages
from sweeps.sweep import Sweep
from tests.sweeps.cli.calling import Answer, Call

SWEEP = """\
name: small
model: {model}
data: {{train: {folder}/train.jsonl, eval: {folder}/eval.jsonl, max_length: 32}}
train_embeddings: true
space:
  learning_rate: {{low: 1.0e-4, high: 3.0e-2, log: true}}
training:
  max_steps: 10
  per_device_train_batch_size: 4
  report_at: [0.2, 0.4, 0.7, 1.0]
lora: {{r: 4, alpha: 8, dropout: 0.1}}
search: {{seed: 3, sampler: random}}
reliability: {{checkpoint_seconds: 0.01}}
trials: 5
seats: 3
output: {folder}/runs
storage: {storage}
"""


def train(blueprint: Blueprint, url: str, *, most_turns: int = 100) -> None:
    """The sweep's trials on one pack, for as many turns of reports; what is running then is left so."""
    keeper = Keeper(blueprint.study_spec, url)
    session = blueprint.worker_spec.open_session(1, lambda *_: None, lambda: None, Stages())
    keeper.rejoin(0, "it is new")
    keeper.register(0, session.base_eval_loss, session.base_weights)
    reply = keeper.ask(0, session.free_seats)
    for _ in range(most_turns):
        for number in reply.leave:
            session.remove(number)
        for placed in reply.start:
            session.start_trial(placed.seat, placed.assignment)
        if not session.trials:
            break
        reply = keeper.report(0, session.advance(60), session.free_seats, 1.0)
    keeper.leave()


@pytest.fixture(scope="package")
def new_sweep(
    tmp_path_factory: pytest.TempPathFactory, tiny_model: Callable[..., Path]
) -> Callable[..., Sweep]:
    """`new_sweep(storage=..., most_turns=...)`: trained so far, in a folder of its own."""

    def make(*, storage: str = "null", most_turns: int = 100) -> Sweep:
        folder = tmp_path_factory.mktemp("replay")
        for name, first, last in (("train", 1, 60), ("eval", 60, 76)):
            words = {
                i: "".join(chr(97 + (i * k + k) % 26) for k in range(3 + i % 5)) for i in range(first, last)
            }
            lines = [
                json.dumps({"prompt": f"{word}{i}:", "completion": word[::-1]}) for i, word in words.items()
            ]
            (folder / f"{name}.jsonl").write_text("\n".join(lines), encoding="utf-8")
        file = folder / "small.yaml"
        model = shutil.copytree(tiny_model("llama"), folder / "model")
        file.write_text(SWEEP.format(model=model, folder=folder, storage=storage), encoding="utf-8")
        sweep = Sweep.load(file)
        blueprint = sweep.plan()
        write_run_folder(sweep.config)
        train(blueprint, sweep.storage_url, most_turns=most_turns)
        return Sweep.load(sweep.run_folder)

    return make


@pytest.fixture(scope="package")
def ended(new_sweep: Callable[..., Sweep]) -> Sweep:
    """Every trial has ended."""
    return new_sweep()


@pytest.fixture(scope="package")
def interrupted(new_sweep: Callable[..., Sweep]) -> Sweep:
    """In a journal; trial 0 has reported at 70% of its budget, and its last checkpoint was at 40%."""
    return new_sweep(storage="journal:study.log", most_turns=4)


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Call:
    """`call("replay", folder, 3)`: the entry point, with its exit code and output."""
    monkeypatch.setenv("COLUMNS", "200")

    def call(*arguments: object) -> Answer:
        capsys.readouterr()
        code = 0
        try:
            main([str(argument) for argument in arguments])
        except SystemExit as ended:
            code = ended.code if isinstance(ended.code, int) else 1
        captured = capsys.readouterr()
        return Answer(code, captured.out, captured.err)

    return call
