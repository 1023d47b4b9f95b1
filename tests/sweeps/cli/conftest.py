"""A folder with a sweep file, the command line called in it, and a run that has ended."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sweeps.artifacts.run_folder import write_run_folder
from sweeps.cli.main import main
from sweeps.keeper.keeper import Keeper
from sweeps.run.before_run import BEST_FILE, RESULT_FILES
from sweeps.sweep import Sweep
from tests.sweeps.cli.calling import Answer, Call
from tests.sweeps.watched_sweep import watched as watched

SWEEP = """\
name: small
model: {model}
data: {{train: data.jsonl, eval_fraction: 0.2, max_length: 32}}
train_embeddings: true
training: {{max_steps: 100, per_device_train_batch_size: 4}}
trials: 4
output: runs
"""


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Call:
    """`call("plan", "s.yaml")`: the entry point, with its exit code and output."""
    monkeypatch.setenv("COLUMNS", "100")

    def call(*arguments: object) -> Answer:
        capsys.readouterr()
        code = 0
        try:
            main([str(argument) for argument in arguments])
        except SystemExit as ended:
            code = ended.code if isinstance(ended.code, int) else 1 if ended.code else 0
        captured = capsys.readouterr()
        return Answer(code, captured.out, captured.err)

    return call


@pytest.fixture
def folder(tmp_path: Path, tiny_model: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a sweep file, its data and a model."""
    monkeypatch.delenv("SWEEPS_STORAGE", raising=False)
    folder = tmp_path / "work"
    folder.mkdir()
    shutil.copytree(tiny_model("llama"), folder / "model")
    records = [{"prompt": f"w{i}:", "completion": f"word{i}"[::-1]} for i in range(60)]
    (folder / "data.jsonl").write_text("".join(json.dumps(r) + "\n" for r in records))
    (folder / "s.yaml").write_text(SWEEP.format(model="model"))
    return folder


@pytest.fixture
def ran(folder: Path, pack: Any) -> Path:
    """The run folder of a sweep that a simulated pack ran; this process still holds its study."""
    sweep, keeper = run_simulated(folder, pack)
    keeper._storage.engine.dispose()
    return sweep.run_folder


@pytest.fixture
def finished(folder: Path, pack: Any) -> Path:
    """The run folder of a sweep that has ended, with files in place of its results."""
    sweep, keeper = run_simulated(folder, pack)
    keeper.leave()
    for name in (*RESULT_FILES, BEST_FILE):
        path = sweep.run_folder / name
        path.parent.mkdir(exist_ok=True)
        path.touch()
    return sweep.run_folder


def run_simulated(folder: Path, pack: Any) -> tuple[Sweep, Keeper]:
    sweep = Sweep.load(folder / "s.yaml")
    write_run_folder(sweep.config)
    keeper = Keeper(sweep.plan().study_spec, sweep.storage_url)
    keeper.register(0, 3.5)
    pack(keeper).run()
    return sweep, keeper
