"""`sweeps demo`: the whole job on the embedded base and real text, without a network."""

from __future__ import annotations

from pathlib import Path

from sweeps.config import SweepConfig, load_text
from sweeps.demo.base import build_base
from sweeps.demo.docstrings import write_dataset

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
  # No table speaks of a base of 5 million parameters; widened upwards, so that the sweep can find its own rate.
  learning_rate: {{low: 1.0e-4, high: 2.0e-2, log: true}}
training:
  max_steps: {max_steps}
  per_device_train_batch_size: 8
  report_at: [0.2, 0.4, 0.7, 1.0]
lora: {{r: 16, alpha: 16}}
search: {{sampler: tpe, pruner: successive_halving, seed: 0}}
trials: {trials}
seats: 4
output: {output}
"""


def demo_config(*, trials: int = 16, max_steps: int = 30, output: Path | str = "runs") -> SweepConfig:
    """The demo's config; builds the base (about a minute, once per machine) and the dataset where they are missing."""
    model = build_base()
    train, evaluation = write_dataset(model.parent / "docstrings")
    text = SWEEP_FILE.format(
        model=model,
        train=train,
        eval=evaluation,
        max_steps=max_steps,
        trials=trials,
        output=Path(output).absolute(),
    )
    return load_text(text, Path("demo.yaml"))
