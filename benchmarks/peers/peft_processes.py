"""Several `peft_process` at once: started together, and killed on leaving."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from benchmarks.harness.processes import child_environment
from benchmarks.peers.peft_process import WAIT_SECONDS, Spec, write
from benchmarks.training_steps.case import Case
from benchmarks.training_steps.random_llama import random_model
from lora_runner.base.load_model import nf4_config


def write_base(case: Case, folder: Path) -> None:
    """Save the case's random model, quantized, as a folder that transformers loads."""
    model = random_model(case.shape, case.device, case.dtype)
    model.config.quantization_config = nf4_config(case.dtype)
    model.save_pretrained(folder)


class PeftProcesses:
    """Processes started together; leaving kills those still running."""

    def __init__(self, specs: Sequence[Spec]) -> None:
        self.specs = specs
        self._logs = [spec.file("log", spec.index).open("w+") for spec in specs]
        self._running = [
            subprocess.Popen(
                [sys.executable, "-m", "benchmarks.peers.peft_process", str(write(spec))],
                env=child_environment(),
                stdout=log,
                stderr=subprocess.STDOUT,
            )
            for spec, log in zip(specs, self._logs, strict=True)
        ]

    def __enter__(self) -> PeftProcesses:
        return self

    def __exit__(self, *_: object) -> None:
        for process, log in zip(self._running, self._logs, strict=True):
            with suppress(ProcessLookupError):
                process.kill()
            process.wait()
            log.close()

    def meet(self, word: str) -> None:
        """Wait until every process has written its `word` file or ended; TimeoutError otherwise."""
        until = time.monotonic() + WAIT_SECONDS
        for spec, process in zip(self.specs, self._running, strict=True):
            while process.poll() is None and not spec.file(word, spec.index).exists():
                if time.monotonic() > until:
                    raise TimeoutError(f"process {spec.index} did not say {word} in {WAIT_SECONDS} s")
                time.sleep(0.02)

    def found(self) -> list[dict[str, Any]]:
        """Return all measurements; RuntimeError with the end of the output of one that failed."""
        results = []
        for spec, process, log in zip(self.specs, self._running, self._logs, strict=True):
            code = process.wait(WAIT_SECONDS)
            if code:
                log.seek(0)
                lines = log.read().strip().splitlines()[-3:]
                raise RuntimeError(f"process {spec.index} ended with {code}: {' | '.join(lines)}")
            path = spec.file("trial", spec.index).with_suffix(".found.json")
            results.append(json.loads(path.read_text()))
        return results
