"""A whole sweep beside the usual stack: `python -m benchmarks.sweep [--save] [--quick]`.

Ours is `sweeps run`; the peer is `benchmarks/peers/usual_stack.py`. Both are timed as whole processes,
including imports, Ray, loading the base, and writing results.
"""

from __future__ import annotations

import json
import math
import os
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.harness.processes import Finished, run_for_outcome, run_python, scratch
from benchmarks.harness.report import Report, arguments
from benchmarks.peers.sweep_workload import Workload
from sweeps.sweep import Sweep

TRIALS, QUICK_TRIALS, PROBE_TRIALS = 48, 2, 2
SWEEP_FILE = """\
name: bench
model: {model}
data: {{train: {train}, eval: {eval}, max_length: {max_length}, max_eval_examples: null,
  num_sample_prompts: 0}}
train_embeddings: {train_embeddings}
space:
  learning_rate: {{low: {learning_rate_low}, high: {learning_rate_high}, log: true}}
  lr_scheduler_type: {{value: {lr_scheduler_type}}}
  warmup_ratio: {{value: {warmup_ratio}}}
  {embedding_lr_ratio}
training:
  max_steps: {max_steps}
  evaluations: {evaluations}
  per_device_train_batch_size: {batch_size}
  per_device_eval_batch_size: {eval_batch_size}
  max_grad_norm: {max_grad_norm}
  seed: {seed}
lora: {{r: {lora_r}, alpha: {lora_alpha}}}
search: {{sampler: tpe, pruner: none, seed: {seed}}}
trials: {trials}
workers: {workers}
seats: {seats}
output: {output}
"""


@dataclass(frozen=True, kw_only=True)
class Side:
    """One side's sweep; times in seconds since its process started."""

    name: str
    seconds: float
    cpu_seconds: float
    first_started: float
    """When the first trial began: ours with a loaded base, the peer's loads its own."""
    first_finished: float
    last_finished: float
    trials: int
    best_loss: float

    @property
    def trials_per_hour(self) -> float:
        """Of the whole sweep, including start-up."""
        return 3600 * self.trials / self.seconds

    @property
    def marginal_seconds(self) -> float:
        """Seconds per trial from the first one's start to the last one's end."""
        return (self.last_finished - self.first_started) / self.trials


def our_sweep(work: Workload, workers: int, seats: int) -> tuple[Side, float]:
    """Run `sweeps run`; also return the share (0..1) of the seats' time in which they trained, or NaN."""
    with scratch() as folder:
        (folder / "sweep.yaml").write_text(
            SWEEP_FILE.format(
                **{name: json.dumps(value) for name, value in vars(work).items()},
                embedding_lr_ratio="embedding_lr_ratio: {value: 1.0}" if work.train_embeddings else "",
                workers=workers,
                seats=seats,
                output=folder / "runs",
            )
        )
        process = run_python(["-m", "sweeps", "run", "sweep.yaml"], folder)
        study = Sweep.load(folder / "runs" / "bench", check_files=False).study()
        trials = study.get_trials(deepcopy=False)
        started = [_since(process, trial.datetime_start) for trial in trials]
        finished = [_since(process, trial.datetime_complete) for trial in trials]
        side = Side(
            name=f"this program, {workers} worker{'s' if workers > 1 else ''} with {seats} seats",
            seconds=process.seconds,
            cpu_seconds=process.cpu_seconds,
            first_started=min(started),
            first_finished=min(finished),
            last_finished=max(finished),
            trials=len(trials),
            best_loss=study.best_value,
        )
        return side, float(study.user_attrs.get("seat_busy_share", math.nan))


def _since(process: Finished, moment: datetime | None) -> float:
    assert moment is not None  # every trial of a successful sweep has it
    return moment.timestamp() - process.started


def peer_sweep(work: Workload, processes: int, *, reuse: bool = False) -> tuple[Side, list[dict[str, Any]]]:
    """Run the usual stack; also return what every trial's process measured."""
    options = [json.dumps(asdict(work)), "--processes", processes, *["--reuse-actors"] * reuse]
    process, trials = run_for_outcome("benchmarks.peers.usual_stack", options)
    kept = ", kept for later trials" if reuse else ", one per trial"
    side = Side(
        name=f"usual stack, {processes} process{'es' if processes > 1 else ''} at once{kept}",
        seconds=process.seconds,
        cpu_seconds=process.cpu_seconds,
        first_started=min(trial["clock"][0] for trial in trials) - process.started,
        first_finished=min(trial["clock"][-1] for trial in trials) - process.started,
        last_finished=max(trial["clock"][-1] for trial in trials) - process.started,
        trials=len(trials),
        best_loss=min(trial["eval_loss"] for trial in trials),
    )
    return side, trials


def _parts(trial: dict[str, Any]) -> list[float]:
    return [later - earlier for earlier, later in pairwise(trial["clock"])]


def best_processes(work: Workload, report: Report) -> int:
    """Return how many processes at once are fastest for the peer, found with a few trials."""
    probe = replace(work, trials=PROBE_TRIALS)
    found = {count: peer_sweep(probe, count)[0].seconds for count in (1, 2)}
    tried = ", ".join(f"{count} at once {seconds:.0f} s" for count, seconds in found.items())
    report.note(f"the peer's processes, tried with {PROBE_TRIALS} trials on all cores together: {tried}")
    return min(found, key=lambda count: found[count])


def fleet_size() -> int:
    """Return the number of GPUs, or of cores without GPUs: small products gain nothing from more threads."""
    import torch

    return torch.cuda.device_count() or len(os.sched_getaffinity(0))


def main() -> None:
    """Measure both sides and print the report."""
    parser = arguments(__doc__ or "")
    parser.add_argument("--trials", type=int, default=None, help=f"of each side (default {TRIALS})")
    parser.add_argument("--seats", type=int, default=8, help="trials side by side on each of our workers")
    parser.add_argument(
        "--workers", type=int, default=fleet_size(), help="ours: one a GPU, or one a core (default: all)"
    )
    parser.add_argument("--train-embeddings", action="store_true", help="embeddings and lm_head too")
    parser.add_argument(
        "--processes", type=int, default=None, help="the peer's at once (default: try 1 and 2)"
    )
    parser.add_argument(
        "--reuse", action="store_true", help="also the peer with processes kept for many trials"
    )
    options = parser.parse_args()
    trials = options.trials or (QUICK_TRIALS if options.quick else TRIALS)
    with scratch() as folder:
        work = prepare(folder, trials, options.train_embeddings)
        report = Report(name="sweep", fixed=f"On both sides: {work.described()}.")
        count = options.processes or (2 if options.quick else best_processes(work, report))
        peer, peer_trials = peer_sweep(work, count)
        ours, busy = our_sweep(work, options.workers, options.seats)
        sides = [ours, peer] + ([peer_sweep(work, count, reuse=True)[0]] if options.reuse else [])
    report.table(
        "Whole sweep, from before the process was made until it had ended",
        ["side", "trials", "wall s", "CPU s", "wall s per trial", "trials per hour", "best evaluation loss"],
        [
            [s.name, s.trials, s.seconds, s.cpu_seconds, s.seconds / s.trials, s.trials_per_hour, s.best_loss]
            for s in sides
        ],
    )
    report.table(
        "Where the seconds go: moments since before the process was made",
        [
            "side",
            "first trial starts",
            "first has ended",
            "last has ended",
            "process has",
            "s per trial between",
        ],
        [
            [s.name, s.first_started, s.first_finished, s.last_finished, s.seconds, s.marginal_seconds]
            for s in sides
        ],
    )
    report.table(
        "Inside a trial of the usual stack, median seconds",
        ["imports", "loading the base and the adapter", "training and evaluation"],
        [[median(part) for part in zip(*(_parts(trial) for trial in peer_trials), strict=True)]],
    )
    report.note(
        "the losses are alike, not equal: ours weights every token alike, the Trainer's eval_loss every "
        "batch; order of examples, initial adapters and drawn learning rates differ"
    )
    report.note(
        "neither side samples texts, as ours would by default (num_sample_prompts); ours writes its study, "
        "tables and verdict to disk"
    )
    report.note(
        "CPU seconds are those of all processes of a side, less disturbed by others on the same cores"
    )
    report.figure("sweep_trials_per_hour_ratio", ours.trials_per_hour / peer.trials_per_hour)
    report.figure("sweep_marginal_trial_ratio", peer.marginal_seconds / ours.marginal_seconds)
    report.figure("sweep_cpu_seconds_ratio", peer.cpu_seconds / ours.cpu_seconds)
    report.figure("seat_busy_share", busy)
    report.finish(save=options.save)


def prepare(folder: Path, trials: int, train_embeddings: bool) -> Workload:
    """Return the demo's base and dataset, built if missing, with a smaller evaluation set."""
    from sweeps.demo.demo_sweep import demo_config

    demo = demo_config()
    assert demo.data.eval is not None
    work = Workload(
        model=demo.model.name,
        train=demo.data.train,
        eval=str(folder / "eval.jsonl"),
        trials=trials,
        train_embeddings=train_embeddings,
    )
    lines = Path(demo.data.eval).read_text(encoding="utf-8").splitlines(keepends=True)
    Path(work.eval).write_text("".join(lines[: work.eval_examples]), encoding="utf-8")
    return work


if __name__ == "__main__":
    main()
