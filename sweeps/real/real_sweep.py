"""The sweep of `make real`, and its losses compared with those of transformers and peft."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from files_and_text.trial_paths import BEST_FOLDER
from lora_runner.base.load_model import BaseSpec
from lora_runner.config import TrialConfig
from lora_runner.data import DataBundle
from results.best import read_best_config
from results.verdict.verdict import Verdict
from sweeps.config import SweepConfig, load_text
from sweeps.demo.docstring_dataset import cached_dataset
from sweeps.errors import SweepFailed
from sweeps.real.compare_with_peft import TOLERANCE, LossPair, evaluate_with_peft, train_with_both
from sweeps.real.conversations import conversation

DATASET_REVISION = 1
"""To be raised when the records change."""
STEPS_BESIDE_PEFT = 4
SWEEP_FILE = """\
# SmolLM2-135M-Instruct learns to answer with the docstrings of Python's standard library.
name: real
model: {model}
data:
  train: {train}
  eval: {eval}
  max_length: 192
  max_eval_examples: 64
scenario: instruction
space:
  # The tables say nothing about models below a billion parameters, so the range is widened upwards.
  learning_rate: {{low: 1.0e-4, high: 1.0e-2, log: true}}
training:
  max_steps: {max_steps}
  per_device_train_batch_size: 4
  report_at: [0.25, 0.5, 1.0]
lora: {{r: 16, alpha: 16}}
search: {{sampler: tpe, pruner: successive_halving, seed: 0}}
trials: {trials}
seats: 4
output: {output}
"""


def real_config(model: Path, *, trials: int, max_steps: int, output: Path) -> SweepConfig:
    """The sweep on the built `model`; its dataset is kept in the same cache."""
    train, evaluation = cached_dataset(model.parent, f"conversations-{DATASET_REVISION}", form=conversation)
    text = SWEEP_FILE.format(
        model=model,
        train=train,
        eval=evaluation,
        max_steps=max_steps,
        trials=trials,
        output=output.absolute(),
    )
    return load_text(text, Path("real.yaml"))


def losses_of_both(base: BaseSpec, data: DataBundle, verdict: Verdict, run_folder: Path) -> list[LossPair]:
    """Losses from the sweep and from plain transformers and peft; SweepFailed when they differ."""
    assert verdict.best is not None
    assert verdict.best.eval_loss is not None
    assert verdict.base_eval_loss is not None
    best = run_folder / BEST_FOLDER
    untouched, adapted = evaluate_with_peft(base, best, data)
    pairs = [
        LossPair("untouched base, evaluation", verdict.base_eval_loss, untouched),
        LossPair(f"best (trial {verdict.best.number}), evaluation", verdict.best.eval_loss, adapted),
    ]
    pairs += train_with_both(
        base, best_trial(best), data, steps=STEPS_BESIDE_PEFT, folder=run_folder / "beside-peft"
    )
    check_equal(pairs)
    return pairs


def best_trial(best: Path) -> TrialConfig:
    """The configuration of the best trial, from best/."""
    config = read_best_config(best)
    training, lora = config["training"], config["lora"]
    names = TrialConfig.__dataclass_fields__
    return TrialConfig(**{name: value for name, value in {**training, **lora}.items() if name in names})


def check_equal(pairs: Sequence[LossPair]) -> None:
    """SweepFailed with every pair of losses that differs by more than rounding."""
    wrong = [
        f"{pair.name}: {pair.ours:.6f} here, {pair.peft:.6f} with transformers and peft"
        for pair in pairs
        if not pair.difference <= TOLERANCE
    ]
    if wrong:
        raise SweepFailed("\n".join(wrong))
