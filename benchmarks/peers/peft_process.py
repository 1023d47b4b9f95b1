"""One trial per process, as it is usually run: load the model, train with peft, end.

`python -m benchmarks.peers.peft_process SPEC` is started by `peft_processes.py`. Once loaded, a process
trains in every round that it takes part in: how many train at once may change without loading anything
again. Processes wait for each other through files in a folder.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil

WAIT_SECONDS = 240.0
"""Longest wait for the other processes."""
POLL_SECONDS = 0.02
WARM_UP = 2
PHASES = ("plain", "checkpointing")
"""Without gradient checkpointing and with it."""


@dataclass(frozen=True, kw_only=True)
class Spec:
    """What one process trains, and the folder in which processes wait for each other."""

    base: str
    """Folder of the model."""
    shape: dict[str, Any]
    num_tokens: int
    rank: int
    steps: int
    """Of a round."""
    index: int
    threads: int
    """While it loads."""
    meeting: str
    """Folder of the files by which processes synchronize."""

    def file(self, word: str, index: int | None = None) -> Path:
        """Return the file of one process, or of all."""
        return Path(self.meeting, word if index is None else f"{word}-{index}")


def batch_of(step: int, index: int, at_once: int) -> int:
    """Return the number of a trial's micro-batch in a step, different for each."""
    return step * at_once + index


def wait_for(file: Path, given_up: Callable[[float], bool]) -> bool:
    """Wait for a file; False if `given_up`, of the seconds waited, is true before it appears."""
    started = time.monotonic()
    while not file.exists():
        if given_up(time.monotonic() - started):
            return False
        time.sleep(POLL_SECONDS)
    return True


def write_whole(path: Path, content: Any) -> None:
    """Write JSON so that nobody sees half of it."""
    unfinished = path.with_name(path.name + ".unfinished")
    unfinished.write_text(json.dumps(content))
    unfinished.replace(path)


def main() -> None:
    """Load the model and train in every round; running out of memory is a result too."""
    path = Path(sys.argv[1])
    spec = Spec(**json.loads(path.read_text()))
    born, parent = psutil.Process().create_time(), os.getppid()

    import torch
    from transformers import AutoModelForCausalLM

    from benchmarks.harness.memory import peak_reserved_bytes
    from benchmarks.harness.timing import forget, seconds, this_device
    from benchmarks.peers.peft_trial import PeftTrial
    from benchmarks.training_steps.case import Case
    from benchmarks.training_steps.random_llama import Shape

    torch.set_num_threads(spec.threads)
    imported = time.time()
    device, dtype = this_device()
    shape = Shape(**spec.shape)
    case = Case(shape=shape, num_tokens=spec.num_tokens, device=device, dtype=dtype, rank=spec.rank)
    try:
        model = AutoModelForCausalLM.from_pretrained(spec.base, device_map={"": device}, dtype=dtype)
        model.config.use_cache = False
        trial = PeftTrial(case, model.requires_grad_(False))
    except torch.OutOfMemoryError:
        write_whole(spec.file("loaded", spec.index), None)
        return
    times = {"start_seconds": imported - born, "load_seconds": time.time() - imported}
    write_whole(spec.file("loaded", spec.index), times)

    def train(number: int, phase: str, at_once: int) -> dict[str, Any] | None:
        """Measure one phase of a round; None if it does not fit."""
        word = f"{number}-{phase}"
        try:
            trial.checkpoint(phase == "checkpointing")
            batches = [
                trial.batch(case.sequences(batch_of(step, spec.index, at_once))) for step in range(spec.steps)
            ]
            forget(device)
            with peak_reserved_bytes(device) as reserved:
                for batch in [trial.batch(case.sequences(0, equal=True)), *batches[: WARM_UP - 1]]:
                    trial.steps([batch])
                spec.file(f"ready-{word}", spec.index).touch()
                if not wait_for(spec.file(f"go-{word}"), lambda waited: waited > WAIT_SECONDS):
                    raise TimeoutError(f"go-{word} did not appear in {WAIT_SECONDS:g} s")
                found = [seconds(lambda batch=batch: trial.steps([batch]), device) for batch in batches]  # type: ignore[misc]
            return {"step_seconds": found, "device_bytes": reserved.peak}
        except torch.OutOfMemoryError:
            trial.optimizer.zero_grad()
            return None
        finally:
            spec.file(f"ready-{word}", spec.index).touch()
            spec.file(f"done-{word}", spec.index).touch()

    cores, number = len(os.sched_getaffinity(0)), 0
    while wait_for(spec.file(f"round-{number}"), lambda _: os.getppid() != parent):
        at_once = int(json.loads(spec.file(f"round-{number}").read_text()))
        if spec.index < at_once:
            torch.set_num_threads(max(1, cores // at_once))
            result = {phase: train(number, phase, at_once) for phase in PHASES}
            write_whole(spec.file(f"found-{number}", spec.index), result)
            forget(device)
        number += 1


def write(spec: Spec) -> Path:
    """Write the spec for a process."""
    path = spec.file("trial", spec.index).with_suffix(".json")
    path.write_text(json.dumps(asdict(spec)))
    return path


if __name__ == "__main__":
    main()
