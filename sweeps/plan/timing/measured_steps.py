"""`sweeps plan --measure`: real steps and an evaluation with all seats taken, timed, with their peak memory.

They run in a process of their own, as in a worker: a process that the system kills for its memory ends no
plan, and its peak is that of a worker alone.
"""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from lora_runner.config import TrialConfig
from sweeps.errors import SweepError
from sweeps.plan.blueprint import Blueprint
from sweeps.plan.specs import StudySpec, WorkerSpec
from sweeps.plan.trial_kinds import first_trials
from sweeps.study.stages import Stages

if TYPE_CHECKING:
    from lora_runner.layout.pack_layout import Block
    from lora_runner.pack.pack import MicroBatch

TRAINING_SECONDS, EVALUATION_SECONDS = 10.0, 5.0
"""How long is measured; the batch that is then computed is completed."""


@dataclass(frozen=True)
class MeasuredSteps:
    """What was measured of a pack whose seats were all taken."""

    seats: int
    start_seconds: float
    """From the start of the process until all seats were taken: imports, base, adapters."""
    batches: int
    """Batches that each seat trained on, after a first one on its longest records."""
    train_tokens: int
    train_seconds: float
    eval_tokens: int
    """Of all seats: each evaluates all of them."""
    eval_seconds: float
    peak_gib: float
    """On a CPU the process's resident memory, on CUDA what tensors take."""

    @property
    def train_speed(self) -> float:
        """Tokens per second of all seats."""
        return self.train_tokens / self.train_seconds

    @property
    def eval_speed(self) -> float:
        """The same in evaluation."""
        return self.eval_tokens / self.eval_seconds


def measure_steps(blueprint: Blueprint) -> MeasuredSteps:
    """Train and evaluate with all seats taken. Raises SweepError with the reason where that fails."""
    workers = 1 if blueprint.device.kind == "cuda" else blueprint.num_workers
    trial = largest_trial(blueprint.study_spec)
    given = (blueprint.worker_spec, trial, workers, time.time(), (TRAINING_SECONDS, EVALUATION_SECONDS))
    command = [sys.executable, "-m", "sweeps.plan.timing.measured_steps"]
    done = subprocess.run(command, input=pickle.dumps(given), capture_output=True)
    if done.returncode < 0:
        raise SweepError(
            f"nothing was measured: the process was ended by signal {-done.returncode}, as happens when "
            "memory runs out"
        )
    if done.returncode:
        lines = done.stderr.decode(errors="replace").strip().splitlines()
        raise SweepError(f"nothing was measured: {lines[-1] if lines else 'the process failed'}")
    return MeasuredSteps(**json.loads(done.stdout.splitlines()[-1]))


def largest_trial(study_spec: StudySpec) -> TrialConfig:
    """The guideline default, with the largest rank, dropout and batch size of the space."""
    params = dict(first_trials(study_spec)[0].params)
    for name in ("lora_r", "lora_dropout", "per_device_train_batch_size"):
        if name in params:
            params[name] = type(params[name])(max(study_spec.space[name].ends()))  # whole numbers stay so
    return study_spec.trial_config(params)


def _measure(
    worker_spec: WorkerSpec,
    config: TrialConfig,
    workers: int,
    started: float,
    seconds: tuple[float, float],
) -> MeasuredSteps:
    import ray.tune  # noqa: F401  # takes memory in every worker
    import torch

    from lora_runner.data import BatchPlan
    from lora_runner.memory.planned_device import num_cores
    from lora_runner.running_trial import block_of
    from lora_runner.trial_reports import peak_memory_gib

    pack = worker_spec.open_pack(max(1, num_cores() // workers), _no_server, lambda: None, Stages())
    device, data, count = pack.base.device, worker_spec.data, worker_spec.seats
    seats = [
        pack.new_seat(replace(config, seed=config.seed + i), seats_to_come=count - 1 - i)
        for i in range(count)
    ]
    start_seconds = time.time() - started
    size, accumulation = config.per_device_train_batch_size, config.gradient_accumulation_steps
    plans = [BatchPlan(train=data.train, batch_size=size, seed=seat.config.seed) for seat in seats]

    def train(number: int) -> int:
        blocks = [block_of(plan.examples_at(number), device) for plan in plans]
        pack.train_step(dict(zip(seats, (_share(b, accumulation) for b in blocks), strict=True)))
        return sum(block.num_tokens for block in blocks)

    def longest(examples: Any, number: int) -> Block:
        return block_of(sorted(examples, key=lambda e: len(e.input_ids))[-number:], device)

    # The first ones take the most memory; they also allocate, so they are not timed.
    block = longest(data.train.examples, size)
    for _ in range(accumulation):
        pack.train_step(dict.fromkeys(seats, _share(block, accumulation)))
    eval_size = worker_spec.session.per_device_eval_batch_size
    pack.evaluate(seats, [longest(data.eval.examples, eval_size)])
    peak = peak_memory_gib(device)

    def evaluate(number: int) -> int:
        found = data.eval.examples
        first = number * eval_size % len(found)
        block = block_of(found[first : first + eval_size], device)
        pack.evaluate(seats, [block])
        return count * block.num_tokens

    def wait() -> None:
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    batches, train_tokens, train_seconds = _timed(train, seconds[0], wait)
    _, eval_tokens, eval_seconds = _timed(evaluate, seconds[1], wait)
    return MeasuredSteps(
        seats=count,
        start_seconds=start_seconds,
        batches=batches,
        train_tokens=train_tokens,
        train_seconds=train_seconds,
        eval_tokens=eval_tokens,
        eval_seconds=eval_seconds,
        peak_gib=peak,
    )


def _share(block: Block, accumulation: int) -> MicroBatch:
    from lora_runner.pack.pack import MicroBatch

    return MicroBatch(block, block.num_tokens, max(1, accumulation * block.num_targets))


def _timed(work: Callable[[int], int], seconds: float, wait: Callable[[], None]) -> tuple[int, int, float]:
    """How often `work` ran within about `seconds`, at least once, its tokens, and how long that took."""
    tokens, times = 0, 0
    wait()
    started = time.perf_counter()
    while True:
        tokens += work(times)
        times += 1
        wait()
        elapsed = time.perf_counter() - started
        if elapsed >= seconds:
            return times, tokens, elapsed


def _no_server(*_: Any) -> Any:
    raise RuntimeError("a step that is measured needs no other machine's files")


def main() -> None:
    worker_spec, config, workers, started, seconds = pickle.loads(sys.stdin.buffer.read())
    print(json.dumps(asdict(_measure(worker_spec, config, workers, started, seconds))))


if __name__ == "__main__":
    main()
