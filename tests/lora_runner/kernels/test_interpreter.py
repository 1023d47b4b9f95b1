"""The tests of kernels in Triton's interpreter, which must be chosen before a kernel is imported."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.lora_runner.kernels.interpreter import FOLDER, NOT_INTERPRETED, OF_MODELS

ROOT = Path(__file__).parents[3]
FILES = sorted(
    file
    for folder in (FOLDER, OF_MODELS)
    for file in folder.glob("test_*.py")
    if file.name not in NOT_INTERPRETED
)
AT_ONCE = 2
"""Processes: the interpreter uses one thread."""


def run(file: Path) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"TRITON_INTERPRET": "1", "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    # Without the fixtures of the folders above, which import most of the program.
    alone = ["--confcutdir", str(FOLDER)] if file.parent == FOLDER else []
    command = [sys.executable, "-m", "pytest", *alone, str(file)]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=600)


@pytest.fixture(scope="module")
def runs(request: pytest.FixtureRequest) -> Iterator[dict[Path, Future[subprocess.CompletedProcess[str]]]]:
    """The runs of all selected files, of which some go on while a test waits for its own."""
    here = [item for item in request.session.items if isinstance(item, pytest.Function)]
    files = [item.callspec.params["file"] for item in here if item.path == Path(__file__)]
    with ThreadPoolExecutor(AT_ONCE) as pool:
        yield {file: pool.submit(run, file) for file in files}


@pytest.mark.slow
@pytest.mark.parametrize("file", FILES, ids=[file.stem for file in FILES])
def test_kernels_in_the_interpreter(
    runs: dict[Path, Future[subprocess.CompletedProcess[str]]], file: Path
) -> None:
    done = runs[file].result()
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
