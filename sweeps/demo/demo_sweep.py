"""`sweeps demo`: the whole job on the embedded base and real text, without a network."""

from __future__ import annotations

import platform
from pathlib import Path

from sweeps.config import SweepConfig, load_text
from sweeps.demo.base import build_base
from sweeps.demo.docstrings import write_dataset

DATASET_REVISION = 1
"""Raise when a change of docstrings.py changes its records."""
SWEEP_FILE = """\
# The demo: fine-tune a small embedded base to write the docstrings of Python's standard library.
name: demo
model: {model}
data:
  train: {train}
  eval: {eval}
  max_length: 128
  max_eval_examples: 48
train_embeddings: true          # so that both learning rates matter
scenario: general
space:
  # No table speaks of a base of 5 million parameters: widened upwards, so that it can find its own rate.
  learning_rate: {{low: 1.0e-4, high: 2.0e-2, log: true}}
training:
  max_steps: {max_steps}
  per_device_train_batch_size: 4
  report_at: [0.2, 0.4, 0.7, 1.0]
lora: {{r: 16, alpha: 16}}
search: {{sampler: tpe, pruner: successive_halving, seed: 0}}
trials: {trials}
seats: 4
output: {output}
"""


def demo_config(*, trials: int = 16, max_steps: int = 40, output: Path | str = "runs") -> SweepConfig:
    """The demo's config; builds the base (about a minute, once per machine) and the dataset if missing."""
    model = build_base()
    train, evaluation = _dataset(model.parent)
    text = SWEEP_FILE.format(
        model=model,
        train=train,
        eval=evaluation,
        max_steps=max_steps,
        trials=trials,
        output=Path(output).absolute(),
    )
    return load_text(text, Path("demo.yaml"))


def _dataset(cache: Path) -> tuple[Path, Path]:
    """The dataset of this Python's library; reading the whole library takes seconds, so it is kept."""
    folder = cache / f"docstrings-{DATASET_REVISION}-python-{platform.python_version()}"
    train, evaluation = folder / "train.jsonl", folder / "eval.jsonl"
    # Each file appears whole or not at all, the second one last.
    return (train, evaluation) if evaluation.is_file() else write_dataset(folder)
