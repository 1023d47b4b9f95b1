"""Several `peft_process` at once: they stay loaded while more and fewer of them train, and end on leaving."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, TextIO

from benchmarks.harness.processes import child_environment
from benchmarks.peers.peft_process import PHASES, POLL_SECONDS, WAIT_SECONDS, Spec, write, write_whole
from benchmarks.training_steps.case import Case
from benchmarks.training_steps.random_llama import random_model
from lora_runner.base.load_model import nf4_config
from lora_runner.certificate.cublas_settings import VARIABLES

Round = dict[str, dict[str, Any] | None]
"""What one process found in a round, by phase; None where it ran out of memory."""


def write_base(case: Case, folder: Path) -> None:
    """Save the case's random model, quantized, as a folder that transformers loads."""
    model = random_model(case.shape, case.device, case.dtype)
    model.config.quantization_config = nf4_config(case.dtype)
    model.save_pretrained(folder)


class PeftProcesses:
    """Processes of one `spec` each, numbered from 0; leaving kills them.

    Raises RuntimeError with the end of the output of a process that failed, and TimeoutError when one does
    not answer.
    """

    def __init__(self, spec: Spec, wait_seconds: float = WAIT_SECONDS) -> None:
        self.wait_seconds = wait_seconds
        """Longest wait for all processes."""
        self._spec = spec
        self._specs: list[Spec] = []
        self._running: list[tuple[subprocess.Popen[bytes], TextIO]] = []
        self._rounds = 0

    def __len__(self) -> int:
        return len(self._specs)

    def __enter__(self) -> PeftProcesses:
        return self

    def __exit__(self, *_: object) -> None:
        for process, log in self._running:
            with suppress(ProcessLookupError):
                process.kill()
            process.wait()
            log.close()

    def start(self, more: int) -> float | None:
        """Start that many more at once; the seconds until the last has loaded, None if one does not fit."""
        threads = max(1, len(os.sched_getaffinity(0)) // more)
        new = [replace(self._spec, index=len(self) + i, threads=threads) for i in range(more)]
        for spec in new:
            log = spec.file("log", spec.index).open("w+")
            command = [sys.executable, "-m", "benchmarks.peers.peft_process", str(write(spec))]
            process = subprocess.Popen(command, env=child_environment(), stdout=log, stderr=subprocess.STDOUT)
            self._running.append((process, log))
            self._specs.append(spec)
        times = [self._answer(spec.index, "loaded") for spec in new]
        if None in times:
            return None
        return max(float(found["start_seconds"] + found["load_seconds"]) for found in times)

    def train(self, at_once: int) -> list[Round]:
        """Let the first `at_once` train at the same time, in every phase."""
        number, self._rounds = self._rounds, self._rounds + 1
        write_whole(self._spec.file(f"round-{number}"), at_once)
        for phase in PHASES:
            self._meet(f"ready-{number}-{phase}", at_once)
            self._spec.file(f"go-{number}-{phase}").touch()
            self._meet(f"done-{number}-{phase}", at_once)
        return [self._answer(index, f"found-{number}") for index in range(at_once)]

    def _answer(self, index: int, word: str) -> Any:
        self._wait([index], word)
        return json.loads(self._specs[index].file(word, index).read_text())

    def _meet(self, word: str, at_once: int) -> None:
        self._wait(range(at_once), word)

    def _wait(self, indices: Any, word: str) -> None:
        """Wait until each of these processes has written its `word` file."""
        until = time.monotonic() + self.wait_seconds
        for index in indices:
            process, log = self._running[index]
            file = self._specs[index].file(word, index)
            while not file.exists():
                code = process.poll()
                if code is not None and not file.exists():
                    log.seek(0)
                    lines = log.read().strip().splitlines()[-3:]
                    raise RuntimeError(f"process {index} ended with {code}: {' | '.join(lines)}")
                if time.monotonic() > until:
                    raise TimeoutError(f"process {index} did not say {word} in {self.wait_seconds:.0f} s")
                time.sleep(POLL_SECONDS)


def _environment() -> dict[str, str]:
    """That of a benchmark, with cuBLAS as it is: a certificate may have changed it for this process."""
    return {name: value for name, value in child_environment().items() if name not in VARIABLES}
