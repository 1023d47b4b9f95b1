"""One trial per process, as it is usually run: load the model, train with peft, end.

`python -m benchmarks.peers.peft_process SPEC` is started by `benchmarks/side_by_side.py`. Processes that
train at once wait for each other through files in a folder.
"""

from __future__ import annotations

import json
import sys
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil

WAIT_SECONDS = 240
"""Longest wait for the other processes."""
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
    index: int
    at_once: int
    threads: int
    meeting: str
    """Folder of the files by which processes synchronize."""

    def file(self, word: str, index: int | None = None) -> Path:
        """Return the file of one process, or of all."""
        return Path(self.meeting, word if index is None else f"{word}-{index}")


def batch_of(step: int, index: int, at_once: int) -> int:
    """Return the number of a trial's micro-batch in a step, different for each."""
    return step * at_once + index


def wait_for(file: Path) -> None:
    """Wait for a file; TimeoutError after WAIT_SECONDS."""
    until = time.monotonic() + WAIT_SECONDS
    while not file.exists():
        if time.monotonic() > until:
            raise TimeoutError(f"{file.name} did not appear in {WAIT_SECONDS} s")
        time.sleep(0.02)


def main() -> None:
    """Load the model and train in every phase; running out of memory is a result too."""
    path = Path(sys.argv[1])
    spec = Spec(**json.loads(path.read_text()))
    born = psutil.Process().create_time()

    import torch
    from transformers import AutoModelForCausalLM

    from benchmarks.harness.memory import used_bytes
    from benchmarks.harness.timing import forget, seconds, this_device
    from benchmarks.peers.peft_trial import PeftTrial
    from benchmarks.training_steps.case import Case
    from benchmarks.training_steps.random_llama import Shape

    torch.set_num_threads(spec.threads)
    imported = time.time()
    device, dtype = this_device()
    shape = Shape(**spec.shape)
    case = Case(shape=shape, num_tokens=spec.num_tokens, device=device, dtype=dtype, rank=spec.rank)
    found: dict[str, Any] = {"phases": {}}

    def train(phase: str) -> dict[str, Any]:
        trial.checkpoint(phase == "checkpointing")
        batches = [
            trial.batch(case.sequences(batch_of(step, spec.index, spec.at_once)))
            for step in range(spec.steps)
        ]
        for batch in [trial.batch(case.sequences(0, equal=True)), *batches[: WARM_UP - 1]]:
            trial.steps([batch])
        spec.file(f"ready-{phase}", spec.index).touch()
        wait_for(spec.file(f"go-{phase}"))
        times = [seconds(lambda batch=batch: trial.steps([batch]), case.device) for batch in batches]
        return {"step_seconds": times, "device_bytes": used_bytes(case.device)}

    with suppress(torch.OutOfMemoryError):  # then the phases are missing
        model = AutoModelForCausalLM.from_pretrained(
            spec.base, device_map={"": case.device}, dtype=case.dtype
        )
        model.config.use_cache = False
        trial = PeftTrial(case, model.requires_grad_(False))
        found |= {"start_seconds": imported - born, "load_seconds": time.time() - imported}
        for phase in PHASES:
            try:
                found["phases"][phase] = train(phase)
            except torch.OutOfMemoryError:
                found["phases"][phase] = None
                trial.optimizer.zero_grad()
                forget(case.device)
            spec.file(f"ready-{phase}", spec.index).touch()
            spec.file(f"done-{phase}", spec.index).touch()
    path.with_suffix(".found.json").write_text(json.dumps(found))


def write(spec: Spec) -> Path:
    """Write the spec for a process; it writes its measurements to a file beside it."""
    path = spec.file("trial", spec.index).with_suffix(".json")
    path.write_text(json.dumps(asdict(spec)))
    return path


if __name__ == "__main__":
    main()
