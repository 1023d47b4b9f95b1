"""The README's commands, run as they stand there."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    """Fenced blocks of one language; "" for those without."""
    fenced = re.findall(r"^```(\w*)\n(.*?)^```$", README, flags=re.DOTALL | re.MULTILINE)
    return [body for named, body in fenced if named == language]


def test_make_knows_the_two_commands() -> None:
    commands = blocks("sh")[0].split("\n")[:-1]
    assert commands == ["make demo", "make test"]
    for command in commands:
        dry = subprocess.run([*command.split(), "--dry-run"], cwd=ROOT, capture_output=True, text=True)
        assert dry.returncode == 0, dry.stderr


@pytest.mark.slow
def test_the_demo_and_the_commands_after_it(tmp_path: Path) -> None:
    """`make demo` ends in `sweeps demo`; a shorter one here, then every command on its run folder."""
    scripts = Path(sys.executable).parent
    environment = {**os.environ, "PATH": f"{scripts}:{os.environ['PATH']}", "COLUMNS": "100"}

    def run(command: str) -> str:
        done = subprocess.run(
            command.replace(".venv/bin/", ""),
            shell=True,
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    last_line = subprocess.run(
        ["make", "--no-print-directory", "--dry-run", "demo"], cwd=ROOT, capture_output=True, text=True
    ).stdout.splitlines()[-1]
    assert last_line == ".venv/bin/sweeps demo"
    printed = run(f"{last_line} --trials 6 --max-steps 10")
    assert "6 of 6 trials finished" in printed
    assert "Guideline rows against sweep demo" in printed
    outputs = {command: run(command) for command in blocks("sh")[1].splitlines()}
    assert "guideline default" in outputs[".venv/bin/sweeps status runs/demo"]
    assert "with the tables' values" in outputs[".venv/bin/sweeps plan runs/demo"]
    assert "chosen" in outputs[".venv/bin/sweeps certify runs/demo"]
    assert "of the budget are equal, bit by bit" in outputs[".venv/bin/sweeps replay runs/demo 0"]
    assert (tmp_path / "runs/demo/export/transformers/train.py").is_file()
    assert (tmp_path / "runs/demo/export/peft/adapter_config.json").is_file()
    assert (tmp_path / "runs/demo/best/adapter_model.safetensors").is_file()


def test_the_sweep_files_shown_are_valid(tmp_path: Path) -> None:
    from sweeps.config import load_sweep

    one, several = blocks("yaml")
    for name in ("train.jsonl", "eval.jsonl"):
        (tmp_path / name).write_text('{"prompt": "a", "completion": "b"}\n', encoding="utf-8")
    file = tmp_path / "sweep.yaml"
    file.write_text(one, encoding="utf-8")
    assert load_sweep(file, environ={}).trials == 48
    file.write_text(one + several, encoding="utf-8")
    config = load_sweep(file, environ={})
    assert (config.workers, config.storage) == (8, "env:SWEEPS_STORAGE")
    for example in (ROOT / "examples").glob("*.yaml"):
        assert yaml.safe_load(example.read_text(encoding="utf-8"))["name"]


def test_the_tree_names_what_is_there() -> None:
    for line in blocks("")[-1].splitlines():
        assert (ROOT / line.split()[0]).is_dir(), line


def test_figures_beside_the_usual_stack_are_those_of_the_committed_results() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    figures: dict[str, float] = {}
    for name in ("sweep", "orchestration", "step"):
        path = ROOT / "results" / "reference" / f"bench-{name}-cpu.json"
        figures |= json.loads(path.read_text(encoding="utf-8"))["figures"]
    for said in (
        f"{figures['sweep_trials_per_hour_ratio']:.1f} times the trials per hour",
        f"{figures['sweep_marginal_trial_ratio']:.1f} times as fast",
        f"| {figures['empty_trial_seconds']:.3f} s | {figures['peer_empty_trial_seconds']:.2f} s |",
        f"8 seats | {figures['operations_per_trial_step_k8']:.0f} | "
        f"{figures['operations_per_trial_step_peft']:.0f} (peft)",
        f"Seats were busy {100 * figures['seat_busy_share']:.1f}% of the time",
    ):
        assert said in text, said
    assert figures["memory_model_error_pct"] <= 3.3


def test_losses_of_the_real_model_are_those_of_its_page() -> None:
    page = (ROOT / "results" / "reference" / "real.md").read_text(encoding="utf-8")
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in page.splitlines() if "|" in line]
    losses = {cells[0].partition(" (")[0]: cells for cells in rows if len(cells) == 3}
    said = README[README.index("`make real` does the same") :]
    for name, called in (
        ("untouched base", "untouched model"),
        ("guideline default", "guideline default"),
        ("best", "best of 8 trials"),
    ):
        loss, rate = losses[name][1], losses[name][2]
        assert f"| {called} | {float(loss):.3f} |" in said
        if rate:
            assert f"{float(rate):.1e}".replace("e-0", "e-").replace(".0e", "e") in said
    differences = [float(cells[3].rstrip("%")) for cells in rows if len(cells) == 4 and "%" in cells[3]]
    assert len(differences) == 6
    assert max(differences) < 0.0001
    method = next(cells for cells in rows if cells[0] == "method.qlora")
    assert f"loses {float(re.findall(r'([0-9.]+)%', method[5])[0]):.1f}% against it. Plain" in said.replace(
        "\n", " "
    )
