"""Everything that needs a CUDA device: `python -m benchmarks.gpu [--only NAME ...] [--out FOLDER]`.

First the tests of `lora_runner` that are marked for a GPU, then every benchmark of a training step. Each runs
in its own process with a time limit and saves as it goes, so nothing is lost if one fails or takes too long.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import torch

from benchmarks.harness.processes import ROOT
from benchmarks.harness.report import FOLDER

GRACE_SECONDS = 10
"""Between interrupting a stage that takes too long and killing it."""


@dataclass(frozen=True)
class Stage:
    """One process."""

    name: str
    arguments: tuple[str, ...]
    """Of Python."""
    seconds: int
    """After which it is ended."""


def benchmark(name: str, seconds: int, *arguments: str) -> Stage:
    return Stage(name, ("-m", f"benchmarks.{name}", "--save", *arguments), seconds)


def stages() -> list[Stage]:
    """Return the stages: tests first, then the benchmarks."""
    # Single operations first, since their failures explain later ones. By file, since some tests of data need
    # packages that a training machine may lack.
    names = ("layers/test_block_matmul", "layers/test_invariant_attention", "optim/test_adamw")
    names += ("optim/test_adamw_8bit", "test_checkpoint", "test_session", "test_interruptions")
    names += ("pack/test_out_of_memory", "pack/test_exactness")
    files = [f"tests/lora_runner/{name}.py" for name in names]
    return [
        # Other library versions may warn; these tests do not check that.
        Stage("tests", ("-m", "pytest", "-m", "gpu", "-W", "default", "--durations=15", *files), 240),
        benchmark("floor", 120),
        benchmark("update", 60),
        benchmark("side_by_side", 240),
        # The whole grid of steps takes longer than the rest together, so it is limited by time.
        benchmark("step", 240, "--seconds", "150"),
    ]


def run(stage: Stage, folder: Path) -> str:
    """Run a stage with its output in `folder`; return in words how it ended."""
    started = time.monotonic()
    with (folder / f"{stage.name}.txt").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, *stage.arguments],
            cwd=ROOT,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            ended = f"ended with {process.wait(stage.seconds)}"
        except subprocess.TimeoutExpired:
            ended = f"was ended after {stage.seconds} s"
            process.send_signal(signal.SIGINT)  # pytest then reports failures so far
            with suppress(subprocess.TimeoutExpired):
                process.wait(GRACE_SECONDS)
        finally:
            with suppress(ProcessLookupError):  # its children must not keep device memory
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    return f"{stage.name} {ended}, {time.monotonic() - started:.0f} s"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    names = [stage.name for stage in stages()]
    parser.add_argument("--only", nargs="+", choices=names, default=names, help="only these stages")
    parser.add_argument(
        "--out", type=Path, default=ROOT / "build" / "gpu", help="folder for output and tables"
    )
    given = parser.parse_args()
    if not torch.cuda.is_available():
        parser.error("there is no CUDA device here")
    given.out.mkdir(parents=True, exist_ok=True)
    ends = []
    for stage in stages():
        if stage.name in given.only:
            ends.append(run(stage, given.out))
            print(ends[-1], flush=True)
            for table in FOLDER.glob("bench-*-gpu.*"):
                shutil.copy2(table, given.out)
    return int(not all("ended with 0" in end for end in ends))


if __name__ == "__main__":
    sys.exit(main())
