"""Everything that needs a CUDA device, the most telling first, in seven minutes on an H200.

`python -m benchmarks.gpu [--only NAME ...] [--seconds N] [--out FOLDER]`: what is exact on this machine, the
tests of `lora_runner` that are marked for a GPU, then every benchmark of a training step. Each runs in its
own process within the time that is left and saves as it goes, so nothing is lost if one fails or takes too
long. The folder holds what all of them printed and their tables, in at most eight files. When it is brought
back from another machine, `python -m benchmarks.gpu --keep FOLDER` writes the tables to results/reference/.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import torch

from benchmarks.harness.processes import ROOT
from benchmarks.harness.report import FOLDER, markdown_of
from files_and_text.atomic_files import atomic_write

SECONDS = 420
"""Of everything together."""
LEAST_SECONDS = 20
"""A stage that would have less than these is left out."""
START_SECONDS = 15
"""What a benchmark needs besides what it measures: imports, and printing its report."""
GRACE_SECONDS = 10
"""Between interrupting a stage that takes too long and killing it."""
OUT = "{out}"
"""In a stage's arguments: the folder of the output."""
OUTPUT, TABLES = "output.txt", "bench-*-gpu.json"
TESTS = ROOT / "tests" / "lora_runner"
FIRST_FOLDERS = ("layers", "optim", "fused", "graphs", "pack")
"""Of tests, in this order: failures of single operations explain later ones."""
KERNEL_TESTS = "kernels"
MARKED_WHOLE = (KERNEL_TESTS, "fused")
"""Folders of tests that get their mark on a machine with a GPU."""


@dataclass(frozen=True)
class Stage:
    """One process."""

    name: str
    arguments: tuple[str, ...]
    """Of Python."""
    seconds: float
    """After which it is ended."""
    reserved: float = 0.0
    """Seconds that earlier stages leave it, of those."""
    is_timed: bool = False
    """Takes `--seconds` and leaves out what would not end within them."""


def benchmark(name: str, seconds: float, *, reserved: float = 0.0) -> Stage:
    return Stage(name, ("-m", f"benchmarks.{name}", "--save"), seconds, reserved, is_timed=True)


def tests(name: str, files: Sequence[str], seconds: float, *, reserved: float) -> Stage:
    # Other library versions may warn; these tests do not check that.
    options = ("-m", "gpu", "-W", "default", "--durations=15")
    return Stage(name, ("-m", "pytest", *options, *files), seconds, reserved)


def stages() -> list[Stage]:
    """Return the stages, the most telling first."""
    # Tests by file, since some tests of data need packages that a machine for training may lack; kernels in a
    # process of their own, since after an invalid access to memory everything in a process fails.
    certify = ("-m", "lora_runner.certificate", "--output", f"{OUT}/certificate.json")
    whole = [file for folder in test_folders() for file in gpu_tests(folder)]
    return [
        Stage("certify", certify, 90),
        tests(KERNEL_TESTS, gpu_tests(KERNEL_TESTS), 90, reserved=0),
        benchmark("floor", 100, reserved=60),
        tests("tests", whole, 130, reserved=40),
        benchmark("side_by_side", 200, reserved=110),
        benchmark("update", 40, reserved=30),
        benchmark("step", 240),
    ]


def test_folders() -> list[str]:
    """Folders of tests besides that of kernels, in the order in which they run; last the tests in none."""
    found = sorted(path.name for path in TESTS.iterdir() if path.is_dir() and path.name != KERNEL_TESTS)
    return [*FIRST_FOLDERS, *(name for name in found if name not in FIRST_FOLDERS), "."]


def gpu_tests(folder: str) -> list[str]:
    """Return the files of a folder of tests that have something for a GPU, relative to the project."""
    return [
        path.relative_to(ROOT).as_posix()
        for path in sorted((TESTS / folder).glob("test_*.py"))
        if folder in MARKED_WHOLE or "mark.gpu" in path.read_text(encoding="utf-8")
    ]


def run(stage: Stage, seconds: float, log: Path) -> str:
    """Run a stage for at most `seconds`, its output at the end of `log`; return in words how it ended."""
    started = time.monotonic()
    timed = ("--seconds", f"{max(1.0, seconds - START_SECONDS):.0f}") if stage.is_timed else ()
    arguments = [argument.replace(OUT, str(log.parent.resolve())) for argument in stage.arguments]
    with log.open("a") as output:
        print(f"\n===== {stage.name}\n", file=output, flush=True)
        process = subprocess.Popen(
            [sys.executable, *arguments, *timed],
            cwd=ROOT,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            ended = f"ended with {process.wait(seconds)}"
        except subprocess.TimeoutExpired:
            ended = f"was ended after {seconds:.0f} s"
            process.send_signal(signal.SIGINT)  # pytest then reports failures so far
            with suppress(subprocess.TimeoutExpired):
                process.wait(GRACE_SECONDS)
        finally:
            with suppress(ProcessLookupError):  # its children must not keep device memory
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        ended = f"{stage.name} {ended}, {time.monotonic() - started:.0f} s"
        print(f"\n===== {ended}", file=output, flush=True)
    return ended


def run_all(chosen: Sequence[Stage], seconds: float, out: Path) -> list[str]:
    """Run stages one after another, `seconds` in all; return how each ended."""
    out.mkdir(parents=True, exist_ok=True)
    (out / OUTPUT).write_text("")
    began, ends = time.time(), list[str]()
    for index, stage in enumerate(chosen):
        left = began + seconds - time.time() - sum(later.reserved for later in chosen[index + 1 :])
        allowed = min(stage.seconds, left)
        if allowed < LEAST_SECONDS:
            ends.append(f"{stage.name} left out, {max(0.0, left):.0f} of {seconds:.0f} s were left")
        else:
            ends.append(run(stage, allowed, out / OUTPUT))
        print(ends[-1], flush=True)
        for tables in FOLDER.glob(TABLES):
            if tables.stat().st_mtime >= began:
                shutil.copy2(tables, out)
    return ends


def keep(folder: Path) -> list[str]:
    """Write the tables in a folder to results/reference/; return the names of the files."""
    written = []
    for path in sorted(folder.glob(TABLES)):
        kept = FOLDER / path.name
        shutil.copy2(path, kept)
        atomic_write(kept.with_suffix(".md"), markdown_of(kept))
        written += [kept.name, kept.with_suffix(".md").name]
    return written


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    names = [stage.name for stage in stages()]
    parser.add_argument("--only", nargs="+", choices=names, default=names, help="only these stages")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="of everything together")
    parser.add_argument(
        "--out", type=Path, default=ROOT / "build" / "gpu", help="folder for output and tables"
    )
    parser.add_argument(
        "--keep", type=Path, metavar="FOLDER", help="only write a folder's tables to results/reference/"
    )
    given = parser.parse_args()
    if given.keep is not None:
        print(*keep(given.keep), sep="\n")
        return 0
    if not torch.cuda.is_available():
        parser.error("there is no CUDA device here")
    ends = run_all([stage for stage in stages() if stage.name in given.only], given.seconds, given.out)
    return int(not all("ended with 0" in end for end in ends))


if __name__ == "__main__":
    sys.exit(main())
