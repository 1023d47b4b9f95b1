"""A real sweep on a real Ray freezes trials and takes them up again: equal to trials never frozen."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from optuna.trial import TrialState

from sweeps.sweep import Sweep
from tests.on_ray import ON_RAY

pytestmark = ON_RAY
ROOT = Path(__file__).parents[3]
WITHIN, AFTER = 1, 2
"""The trial that goes on within the sweep, and the one that rests until `trials` is raised."""
SWEEP = """\
name: thawed
model: {model}
data: {{train: {data}, eval_fraction: 0.2, max_length: 32}}
train_embeddings: true
training: {{max_steps: 10, per_device_train_batch_size: 4, report_at: [0.2, 0.4, 0.7, 1.0]}}
lora: {{r: 4, alpha: 8}}
search: {{sampler: curve_gp, startup_trials: 50, seed: 3, pruner_options: {{min_resource: 40}}}}
trials: 4
seats: 2
"""
DECISIONS = '''\
"""In place of the model, in every process: which trial may win at which time."""
import importlib.util
import sys


class Scripted:
    def find_spec(self, name, path, target=None):
        if name != "sweeps.study.curve_gp.decisions":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        load = spec.loader.exec_module

        def exec_module(module):
            load(module)
            module.chances = lambda space, curves: {
                curve.number: module.Chance(
                    curve.number,
                    curve.percent,
                    0.0 if len(curves) < {1: 4, 2: 5}.get(curve.number, 0) else 0.9,
                )
                for curve in curves
                if curve.reports
            }

        spec.loader.exec_module = exec_module
        return spec


sys.meta_path.insert(0, Scripted())
'''


def test_trials_thawed_within_a_sweep_and_after_its_end_are_equal_to_some_never_frozen(
    tiny_model: Callable[..., Path], tmp_path: Path
) -> None:
    (tmp_path / "sitecustomize.py").write_text(DECISIONS)
    words = ["".join(chr(97 + (i * k + k) % 26) for k in range(3 + i % 5)) for i in range(1, 61)]
    records = [{"prompt": f"{word}{i}:", "completion": word[::-1]} for i, word in enumerate(words)]
    (tmp_path / "data.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    (tmp_path / "sweep.yaml").write_text(SWEEP.format(model=tiny_model("llama"), data="data.jsonl"))

    def command(*words: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "sweeps", *words],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}", "COLUMNS": "110"},
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    ended = command("run", "sweep.yaml")
    folder = tmp_path / "runs/thawed"
    trials = Sweep.load(folder).study().get_trials()
    assert [t.user_attrs["outcome"] for t in trials] == ["complete", "complete", "frozen", "complete"]
    assert trials[WITHIN].user_attrs["attempt"] == 2
    assert trials[AFTER].state == TrialState.RUNNING
    assert (folder / "trials/0002/checkpoint/state.json").exists()
    assert "4 of 4 trials (3 complete, 1 frozen)" in ended
    assert "1 frozen trial keeps its checkpoint and may go on if `trials` is raised." in ended
    said = command("status", "runs/thawed")
    assert "4 of 4 trials (3 complete, 1 frozen)" in said
    assert "trial 2: frozen at step 4 of 10: kept on disk, may go on if `trials` is raised; loss" in said

    command("run", "runs/thawed", "--set", "trials=5")
    trials = Sweep.load(folder).study().get_trials()
    assert [t.state for t in trials] == [TrialState.COMPLETE] * 5
    assert [len(t.user_attrs.get("stays") or [[]]) for t in trials] == [1, 2, 2, 1, 1]
    assert not list(folder.glob("trials/*/checkpoint"))
    for number in (WITHIN, AFTER):
        assert list(trials[number].intermediate_values) == [20, 40, 70, 100]
        # Trained again alone and without a pause: every loss, every norm and the digest of the weights.
        answer = command("replay", "runs/thawed", str(number))
        assert "are equal, bit by bit" in answer
        assert f"{trials[number].value!r}" in answer
