"""The GPU run keeps the output of every stage, and kills stages that take too long with their children."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path

import psutil
import pytest
import torch

from benchmarks import gpu
from benchmarks.gpu import Stage, run, stages
from benchmarks.harness import report
from benchmarks.harness.report import Report

CHILD = """
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(300)"])
print(child.pid, flush=True)
time.sleep(300)
"""


def python(name: str, code: str) -> Stage:
    return Stage(name, ("-c", code), 60)


def test_a_stage_says_how_it_ended_and_leaves_its_output(tmp_path: Path) -> None:
    code = "import sys; print('so far', flush=True); print('why', file=sys.stderr); sys.exit(3)"
    log = tmp_path / "output.txt"
    assert run(python("bad", code), 60, log).startswith("bad ended with 3, ")
    assert run(python("good", ""), 60, log).startswith("good ended with 0, ")
    lines = [line for line in log.read_text().splitlines() if line]
    assert lines[:3] == ["===== bad", "so far", "why"]
    assert lines[3].startswith("===== bad ended with 3, ")
    assert lines[4] == "===== good"


def test_a_stage_that_takes_too_long_goes_with_its_children(tmp_path: Path) -> None:
    log = tmp_path / "output.txt"
    assert run(python("slow", CHILD), 3, log).startswith("slow was ended after 3 s")
    child = int(log.read_text().split()[2])
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
    log = tmp_path / "output.txt"
    assert run(python("slow", code), 2, log).startswith("slow was ended after 2 s")
    assert "failed so far: 1\n" in log.read_text()


def test_a_benchmark_is_told_how_long_it_may_measure(tmp_path: Path) -> None:
    code = "import sys; print(sys.argv[1:])"
    stage, log = Stage("timed", ("-c", code), 60, is_timed=True), tmp_path / "output.txt"
    run(stage, 45, log)
    assert str(["--seconds", f"{45 - gpu.START_SECONDS}"]) in log.read_text()


def test_a_stage_may_write_beside_its_output(tmp_path: Path) -> None:
    code = "import pathlib, sys; pathlib.Path(sys.argv[1]).write_text('here')"
    run(Stage("writes", ("-c", code, f"{gpu.OUT}/certificate.json"), 60), 60, tmp_path / "output.txt")
    assert (tmp_path / "certificate.json").read_text() == "here"


def test_stages_share_the_time(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A long one is cut to what is left, but not into what a later one must have; the last gets the rest."""
    now = [1000.0]

    def take(stage: Stage, seconds: float, log: Path) -> str:
        allowed[stage.name] = seconds
        now[0] += min(seconds, {"short": 10.0}.get(stage.name, 1e9))
        return f"{stage.name} ended with 0"

    allowed: dict[str, float] = {}
    monkeypatch.setattr(gpu, "run", take)
    monkeypatch.setattr(gpu.time, "time", lambda: now[0])
    chosen = [
        Stage("short", (), 100.0),
        Stage("long", (), 200.0),
        Stage("cut", (), 200.0),
        Stage("reserved", (), 40.0, reserved=30.0),
        Stage("rest", (), 200.0),
    ]
    ends = gpu.run_all(chosen, 420.0, tmp_path / "out")
    assert allowed == {"short": 100.0, "long": 200.0, "cut": 180.0, "reserved": 30.0}
    assert ends[-1] == "rest left out, 0 of 420 s were left"


def test_everything_fits_seven_minutes_and_leaves_few_files(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The output of all stages in one file, and one of tables for each benchmark, without those of before."""
    monkeypatch.setattr(gpu, "FOLDER", tmp_path)
    old = tmp_path / "bench-generation-gpu.json"
    old.write_text("{}")
    os.utime(old, (0, 0))

    def saves(stage: Stage, seconds: float, log: Path) -> str:
        (tmp_path / f"bench-{stage.name}-gpu.json").write_text("{}")
        (tmp_path / f"bench-{stage.name}-gpu.md").write_text("")
        return "ended with 0"

    monkeypatch.setattr(gpu, "run", saves)
    chosen = stages()
    gpu.run_all(chosen, gpu.SECONDS, tmp_path / "out")
    found = {path.name for path in (tmp_path / "out").iterdir()}
    assert found == {gpu.OUTPUT, *(f"bench-{stage.name}-gpu.json" for stage in chosen)}
    assert len(found) <= 8
    assert gpu.SECONDS <= 7 * 60


def test_the_most_telling_comes_first() -> None:
    names = [stage.name for stage in stages()]
    assert names == ["certify", "kernels", "floor", "tests", "side_by_side", "update", "step"]
    assert [stage.name for stage in stages() if not stage.is_timed] == ["certify", "kernels", "tests"]


def test_when_all_take_as_long_as_they_may_each_goal_is_still_measured(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def take(stage: Stage, seconds: float, log: Path) -> str:
        allowed[stage.name] = round(seconds)
        now[0] += seconds
        return f"{stage.name} was ended"

    now, allowed = [1000.0], dict[str, int]()
    monkeypatch.setattr(gpu, "run", take)
    monkeypatch.setattr(gpu.time, "time", lambda: now[0])
    gpu.run_all(stages(), gpu.SECONDS, tmp_path / "out")
    assert allowed == {
        "certify": 90,
        "kernels": 90,
        "floor": 60,
        "tests": 40,
        "side_by_side": 110,
        "update": 30,
    }


def test_tables_brought_back_are_kept_with_their_markdown(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("there", "here"):
        (tmp_path / name).mkdir()
    monkeypatch.setattr(report, "FOLDER", tmp_path / "there")
    monkeypatch.setattr(report, "machine", lambda: {"gpu": "an H200"})
    monkeypatch.setattr(gpu, "FOLDER", tmp_path / "here")
    made = Report(name="side-by-side", fixed="Both.", command="python -m benchmarks.side_by_side")
    made.table("Trials", ["side", "trials"], [["pack", 8]])
    made.figure("ratio", 2.0)
    made.note("nothing")
    made.save()
    assert gpu.keep(tmp_path / "there") == ["bench-side-by-side-gpu.json", "bench-side-by-side-gpu.md"]
    for suffix in ("json", "md"):
        there, here = (tmp_path / name / f"bench-side-by-side-gpu.{suffix}" for name in ("there", "here"))
        assert there.read_text() == here.read_text() != ""


def test_no_test_for_a_gpu_is_left_out() -> None:
    marked = {
        path.relative_to(gpu.ROOT).as_posix()
        for path in gpu.TESTS.rglob("test_*.py")
        if "mark.gpu" in path.read_text()
    }
    run_here = [name for stage in stages() for name in stage.arguments if name.startswith("tests/")]
    assert marked <= {*run_here}
    assert len({*run_here}) == len(run_here)
    assert run_here[0].startswith("tests/lora_runner/kernels/")
    for name in ("kernels/test_dense_matmul.py", "fused/test_packs.py"):
        assert f"tests/lora_runner/{name}" in run_here


def test_every_stage_is_there_to_be_run() -> None:
    for stage in stages():
        module = stage.arguments[1]
        spec = find_spec(module)
        assert spec is not None
        assert not spec.submodule_search_locations or find_spec(f"{module}.__main__") is not None
        for name in stage.arguments:
            assert not name.startswith("tests/") or os.path.exists(gpu.ROOT / name)


@pytest.mark.slow
def test_a_machine_without_ray_and_optuna_is_enough() -> None:
    """And without what only the command line and the trackers need."""
    absent = ["ray", "optuna", "rich", "mlflow", "wandb", "datasets", "sqlalchemy"]
    names = [stage.arguments[1] for stage in stages() if stage.is_timed]
    names += ["benchmarks.gpu", "benchmarks.launches", "benchmarks.peers.peft_process"]
    code = f"import sys; sys.modules.update(dict.fromkeys({absent})); import {', '.join(names)}"
    done = subprocess.run([sys.executable, "-c", code], cwd=gpu.ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.mark.skipif(torch.cuda.is_available(), reason="has a CUDA device")
def test_without_a_gpu_there_is_nothing_to_run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["gpu"])
    with pytest.raises(SystemExit):
        gpu.main()
    assert "there is no CUDA device here" in capsys.readouterr().err
