"""The sweep of `sweeps demo`: its model and dataset, built when missing, and its sweep file."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from sweeps.config import SweepConfig, load_text
from sweeps.demo.base_model import build_base
from sweeps.demo.docstring_dataset import cached_dataset

DATASET_REVISION = 1
"""To be raised when a change of docstring_dataset.py changes its records."""
SWEEP_FILE = """\
# The demo: fine-tune a small base model to write the docstrings of Python's standard library.
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
  # The tables say nothing about a base of 5 million parameters, so the range is widened upwards.
  learning_rate: {{low: 1.0e-4, high: 2.0e-2, log: true}}
training:
  max_steps: {max_steps}
  per_device_train_batch_size: 4
  report_at: [0.25, 0.5, 0.75, 1.0]
lora: {{r: 16, alpha: 16}}
search: {{sampler: tpe, pruner: successive_halving, seed: 0}}
trials: {trials}
seats: 4
output: {output}
"""


class DemoFiles(NamedTuple):
    """What the demo is trained on."""

    model: Path
    """A Llama of 5 million parameters."""
    train: Path
    eval: Path
    """JSON lines with a prompt and a completion: functions of Python's standard library, and docstrings."""


def demo_files() -> DemoFiles:
    """The demo's base (built in about a minute, once per machine) and its dataset; needs no network."""
    model = build_base()
    train, evaluation = cached_dataset(model.parent, f"docstrings-{DATASET_REVISION}")
    return DemoFiles(model, train, evaluation)


def demo_config(*, trials: int = 16, max_steps: int = 40, output: Path | str = "runs") -> SweepConfig:
    """The demo's config; builds what `demo_files` finds missing."""
    model, train, evaluation = demo_files()
    text = SWEEP_FILE.format(
        model=model,
        train=train,
        eval=evaluation,
        max_steps=max_steps,
        trials=trials,
        output=Path(output).absolute(),
    )
    return load_text(text, Path("demo.yaml"))
