"""The tests of kernels in Triton's interpreter, which must be chosen before a kernel is imported."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.lora_runner.kernels.interpreter import FOLDER, NOT_INTERPRETED, OF_MODELS

ROOT = Path(__file__).parents[3]
FILES = sorted(
    (file for folder in (FOLDER, OF_MODELS) for file in folder.glob("test_*.py")), key=lambda file: file.name
)


@pytest.mark.slow
@pytest.mark.parametrize(
    "file", [file for file in FILES if file.name not in NOT_INTERPRETED], ids=lambda file: file.stem
)
def test_kernels_in_the_interpreter(file: Path) -> None:
    environment = os.environ | {"TRITON_INTERPRET": "1", "CUDA_VISIBLE_DEVICES": ""}
    # Without the fixtures of the folders above, which import most of the program.
    alone = ["--confcutdir", str(FOLDER)] if file.parent == FOLDER else []
    command = [sys.executable, "-m", "pytest", *alone, str(file)]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
