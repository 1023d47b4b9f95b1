"""`make real`: build the model's folder, check it, run a small sweep on it, and compare with peft."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from rich.console import Console

from files_and_text.atomic_files import atomic_write
from lora_runner.errors import RunnerError
from results.render.terminal import print_verdict
from sweeps.errors import SweepError
from sweeps.real.gguf_model import build_model, packaged_file
from sweeps.real.model_check import QUESTION, check_model
from sweeps.real.real_sweep import losses_of_both, real_config
from sweeps.real.result_page import kept_trials, page
from sweeps.sweep import Sweep


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m sweeps.real", description=__doc__)
    parser.add_argument("--trials", type=int, default=8, help="number of trials to finish")
    parser.add_argument("--max-steps", type=int, default=24, help="optimizer steps of a full trial")
    parser.add_argument(
        "--output", type=Path, default=Path("runs"), help="folder in which the run folder is made"
    )
    parser.add_argument("--save", type=Path, help="also write real.md and real-trials.csv into this folder")
    given = parser.parse_args()
    try:
        run(given.trials, given.max_steps, given.output, given.save, Console())
    except (SweepError, RunnerError) as error:
        print(error, file=sys.stderr)
        sys.exit(getattr(error, "exit_code", 1))


def run(trials: int, max_steps: int, output: Path, save: Path | None, console: Console) -> None:
    """All steps; raises a SweepError or RunnerError when one fails."""
    model = build_model(packaged_file())
    checked = check_model(model)
    console.print(f"{model}: perplexity {checked.perplexity:.2f} per token on Python's documentation")
    console.print(f"{QUESTION} {checked.answer}", markup=False)
    sweep = Sweep(real_config(model, trials=trials, max_steps=max_steps, output=output))
    result = sweep.run(console=console)
    verdict = sweep.verdict(write=False)
    print_verdict(verdict, sweep.answer, console)
    if result.interrupted or verdict.best is None:
        return
    worker_spec = sweep.plan().worker_spec
    pairs = losses_of_both(worker_spec.base, worker_spec.data, verdict, result.run_folder)
    for pair in pairs:
        console.print(
            f"{pair.name}: {pair.ours:.6f}, with transformers and peft {pair.peft:.6f}", markup=False
        )
    text = page(
        verdict,
        sweep.answer,
        checked,
        pairs,
        command=f"python -m sweeps.real --trials {trials} --max-steps {max_steps}",
    )
    atomic_write(result.run_folder / "real.md", text)
    if save is not None:
        save.mkdir(parents=True, exist_ok=True)
        atomic_write(save / "real.md", text)
        atomic_write(save / "real-trials.csv", kept_trials(sweep.tables().trials))
    console.print(f"Results: {result.run_folder}", markup=False, soft_wrap=True)


if __name__ == "__main__":
    main()
