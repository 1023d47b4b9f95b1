"""The GPU run keeps the output of every stage, and kills stages that take too long with their children."""

from __future__ import annotations

import os
import time
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
import torch

from benchmarks import gpu
from benchmarks.gpu import Stage, run, stages

CHILD = """
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(300)"])
print(child.pid, flush=True)
time.sleep(300)
"""


def test_a_stage_says_how_it_ended_and_leaves_its_output(tmp_path: Path) -> None:
    code = "import sys; print('so far', flush=True); print('why', file=sys.stderr); sys.exit(3)"
    assert run(Stage("bad", ("-c", code), 60), tmp_path).startswith("bad ended with 3, ")
    assert (tmp_path / "bad.txt").read_text().split() == ["so", "far", "why"]
    assert run(Stage("good", ("-c", ""), 60), tmp_path).startswith("good ended with 0, ")


def test_a_stage_that_takes_too_long_goes_with_its_children(tmp_path: Path) -> None:
    assert run(Stage("slow", ("-c", CHILD), 3), tmp_path).startswith("slow was ended after 3 s")
    child = int((tmp_path / "slow.txt").read_text().split()[0])
    with suppress(psutil.NoSuchProcess):
        process = psutil.Process(child)
        until = time.monotonic() + 10  # a signal takes its time
        while process.status() != psutil.STATUS_ZOMBIE and time.monotonic() < until:
            time.sleep(0.05)
        assert process.status() == psutil.STATUS_ZOMBIE


def test_a_stage_that_takes_too_long_may_still_print(tmp_path: Path) -> None:
    code = """
import time
try:
    time.sleep(300)
except KeyboardInterrupt:
    print("failed so far: 1")
"""
    assert run(Stage("slow", ("-c", code), 2), tmp_path).startswith("slow was ended after 2 s")
    assert (tmp_path / "slow.txt").read_text() == "failed so far: 1\n"


def test_no_test_for_a_gpu_is_left_out() -> None:
    marked = {
        path.relative_to(gpu.ROOT).as_posix()
        for path in (gpu.ROOT / "tests" / "lora_runner").rglob("test_*.py")
        if "mark.gpu" in path.read_text()
    }
    assert marked == {name for name in stages()[0].arguments if name.startswith("tests/")}


def test_every_stage_is_there_to_be_run() -> None:
    for stage in stages():
        module = stage.arguments[1]
        assert module == "pytest" or Path(gpu.ROOT, *module.split(".")).with_suffix(".py").is_file()
        for name in stage.arguments:
            assert not name.startswith("tests") or os.path.exists(gpu.ROOT / name)


@pytest.mark.skipif(torch.cuda.is_available(), reason="has a CUDA device")
def test_without_a_gpu_there_is_nothing_to_run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["gpu"])
    with pytest.raises(SystemExit):
        gpu.main()
    assert "there is no CUDA device here" in capsys.readouterr().err
