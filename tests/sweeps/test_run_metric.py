"""A sweep whose objective is exact match, on a real Ray and a real NF4 base that learns to answer."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import ray

from sweeps.fleet.ray_start import start_ray
from sweeps.sweep import Sweep
from tests.on_ray import ON_RAY

pytestmark = ON_RAY
LETTERS = "abcdefghijklmnopqr"


@pytest.fixture(scope="module")
def local_ray() -> Iterator[None]:
    """Ray starts once for this module."""
    start_ray()
    yield
    ray.shutdown()


def test_a_sweep_searches_by_exact_match(
    local_ray: None, tiny_model: Callable[..., Path], tmp_path: Path
) -> None:
    """The last letter of a prompt decides about its answer, so it can be learned and not remembered."""
    records = [
        {"prompt": f"{i * 7919 % 9973:04d}{LETTERS[i % 8]}", "completion": LETTERS[i % 8 + 10]}
        for i in range(160)
    ]
    (tmp_path / "data.jsonl").write_text("".join(json.dumps(r) + "\n" for r in records), encoding="utf-8")
    (tmp_path / "sweep.yaml").write_text(
        f"""\
name: answers
model: {tiny_model("llama")}
data: {{train: data.jsonl, eval_fraction: 0.1, max_length: 32}}
train_embeddings: true
space:
  learning_rate: {{low: 1.0e-2, high: 2.0e-2, log: true}}
  embedding_lr_ratio: {{low: 0.8, high: 1.0, log: true}}
training: {{max_steps: 60, per_device_train_batch_size: 8, evaluations: 2}}
lora: {{r: 4, alpha: 8}}
metric: {{name: exact_match, max_new_tokens: 3, num_prompts: 16, objective: true}}
search: {{seed: 3, pruner: none}}
trials: 3
seats: 3
""",
        encoding="utf-8",
    )
    sweep = Sweep.load(tmp_path / "sweep.yaml")
    assert sweep.run().added == 3
    trials = sweep.study().get_trials()
    values = {t.number: t.user_attrs["metric"] for t in trials if t.value is not None}
    assert len(values) == 3
    assert max(values.values()) > 0.5
    assert all(trials[number].value == -value for number, value in values.items())
    base = sweep.study().user_attrs["base_metric"]
    assert 0 <= base < max(values.values())
    assert f"The untouched base has exact_match {base:.4f}." in (sweep.run_folder / "report.html").read_text()
    best = json.loads((sweep.run_folder / "best" / "adapter_config.json").read_text())
    assert best["r"] == 4
    chosen = (sweep.run_folder / "best" / "config.yaml").read_text()
    assert f"value: {max(values.values())}" in chosen
    assert "Searched by exact_match (maximize)" in (sweep.run_folder / "verdict.md").read_text()
    assert "Searched by exact_match (maximize)" in (sweep.run_folder / "report.html").read_text()
    frame = sweep.tables()
    assert list(frame.trials["metric"]) == [t.user_attrs["metric"] for t in trials]
    assert frame.reports["metric"].notna().all()
    header = (sweep.run_folder / "trials.csv").read_text().splitlines()[0]
    assert "metric" in header.split(",")
