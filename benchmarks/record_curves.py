"""Learning curves of real trials, for `benchmarks.search` to replay: `python -m benchmarks.record_curves`.

The program trains the demo's base on its docstrings, trials drawn at random, none stopped early, and the
losses of all reports are kept in one table.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import math
from collections.abc import Iterable
from pathlib import Path

from optuna.trial import FrozenTrial

from benchmarks.harness.processes import run_python, scratch
from benchmarks.simulator.recorded import CURVES, PARAMETERS
from files_and_text.atomic_files import atomic_write
from results.stored_trials import search_trials
from sweeps.demo.demo_sweep import demo_files
from sweeps.sweep import Sweep

REPORT_AT = (10, 20, 40, 60, 80, 100)
SWEEP_FILE = """\
name: curves
model: {model}
data: {{train: {train}, eval: {eval}, max_length: 96, max_eval_examples: 32, num_sample_prompts: 0}}
train_embeddings: true
space:
  learning_rate: {{low: 3.0e-4, high: 3.0e-2, log: true}}
  lr_scheduler_type: {{choices: [constant, linear, cosine]}}
  warmup_ratio: {{low: 0.0, high: 0.2}}
  embedding_lr_ratio: {{low: 0.02, high: 1.0, log: true}}
  lora_r: {{choices: [4, 16, 64]}}
training:
  max_steps: 30
  per_device_train_batch_size: 4
  per_device_eval_batch_size: 16
  report_at: {report_at}
lora: {{alpha: 16}}
search: {{sampler: random, pruner: none, seed: 17, tail_replicates: false}}
trials: {trials}
seats: 8
workers: 1
output: {output}
"""


def main() -> None:
    """Train the trials, a quarter of an hour on two idle cores, and write their curves."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=160)
    parser.add_argument("--run", type=Path, help="take the curves of this run folder, and train nothing")
    parser.add_argument("--file", type=Path, default=CURVES, help="where the table is written")
    options = parser.parse_args()
    if options.run is not None:
        atomic_write(options.file, table(options.run))
        return
    files = demo_files()
    with scratch() as folder:
        (folder / "sweep.yaml").write_text(
            SWEEP_FILE.format(
                model=json.dumps(str(files.model)),
                train=json.dumps(str(files.train)),
                eval=json.dumps(str(files.eval)),
                report_at=[percent / 100 for percent in REPORT_AT],
                trials=options.trials,
                output=json.dumps(str(folder / "runs")),
            ),
            encoding="utf-8",
        )
        run_python(["-m", "sweeps", "run", "sweep.yaml"], folder)
        atomic_write(options.file, table(folder / "runs" / "curves"))


def table(run_folder: Path) -> str:
    """The finished trials of a run."""
    study = Sweep.load(run_folder, check_files=False).study()
    return as_csv([trial for trial in search_trials(study) if trial.intermediate_values])


def as_csv(trials: Iterable[FrozenTrial]) -> str:
    """A row for each trial that has ended: its values, and the loss at each percent of the budget.

    A trial that diverged lacks the losses from there on.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*PARAMETERS, *(f"loss_{percent}" for percent in REPORT_AT)])
    for trial in trials:
        if trial.state.is_finished():
            values = [trial.params.get(name, "") for name in PARAMETERS]
            losses = [trial.intermediate_values.get(percent) for percent in REPORT_AT]
            writer.writerow(
                [
                    *(f"{value:.5g}" if isinstance(value, float) else value for value in values),
                    *("" if loss is None or not math.isfinite(loss) else f"{loss:.5f}" for loss in losses),
                ]
            )
    return text.getvalue()


if __name__ == "__main__":
    main()
