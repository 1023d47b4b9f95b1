"""The README's commands, run as they stand there, and its figures beside the committed results."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from files_and_text.numbers import number

ROOT = Path(__file__).parent.parent
REFERENCE = ROOT / "results" / "reference"
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    """Fenced blocks of one language; "" for those without."""
    fenced = re.findall(r"^```(\w*)\n(.*?)^```$", README, flags=re.DOTALL | re.MULTILINE)
    return [body for named, body in fenced if named == language]


def test_it_is_short() -> None:
    assert len(README.split()) < 900


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
    environment = {**os.environ, "PATH": f"{scripts}:{os.environ['PATH']}", "COLUMNS": "80"}

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
    assert "Done: 6 of 6 trials" in printed
    assert "\nUse   learning_rate " in printed
    outputs = {command: run(command) for command in blocks("sh")[1].splitlines()}
    assert "guideline default" in outputs[".venv/bin/sweeps status runs/demo"]
    assert "Learning rate" in outputs[".venv/bin/sweeps verdict runs/demo"]
    assert (tmp_path / "runs/demo/report.html").is_file()
    assert (tmp_path / "runs/demo/export/trl/train.py").is_file()
    assert (tmp_path / "runs/demo/export/peft/adapter_config.json").is_file()
    assert (tmp_path / "runs/demo/best/adapter_model.safetensors").is_file()


def test_the_commands_for_a_sweep_of_ones_own_exist() -> None:
    """Each is parsed up to the help of its command, which knows every option that is given."""
    lines = [line for line in blocks("")[0].splitlines() if line.startswith("sweeps ")]
    assert len(lines) == 6
    for line in lines:
        command, *rest = shlex.split(line, comments=True)[1:]
        helped = subprocess.run(
            [sys.executable, "-m", "sweeps", command, "--help"], capture_output=True, text=True
        )
        assert helped.returncode == 0, helped.stderr
        for option in (word for word in rest if word.startswith("--")):
            assert option in helped.stdout, line


def test_its_python_is_valid() -> None:
    for block in blocks("python"):
        compile(block, "README.md", "exec")


def test_its_links_and_pictures_exist() -> None:
    targets = re.findall(r"\]\(([^)#]+)", README)
    assert len(targets) > 20
    for target in targets:
        assert target.startswith("https://") or (ROOT / target).exists(), target


def test_figures_beside_the_usual_stack_are_those_of_the_committed_results() -> None:
    text = (ROOT / "docs" / "benchmarks.md").read_text(encoding="utf-8")
    figures: dict[str, float] = {}
    for name in ("sweep", "orchestration", "step"):
        figures |= json.loads((REFERENCE / f"bench-{name}-cpu.json").read_text(encoding="utf-8"))["figures"]
    per_hour = f"{figures['sweep_trials_per_hour_ratio']:.1f} times the trials per hour"
    assert per_hour in README
    for said in (
        per_hour,
        f"{figures['sweep_marginal_trial_ratio']:.1f} times as fast",
        f"| {figures['empty_trial_seconds']:.3f} s | {figures['peer_empty_trial_seconds']:.2f} s |",
        f"8 seats | {figures['operations_per_trial_step_k8']:.0f} | "
        f"{figures['operations_per_trial_step_peft']:.0f} (peft)",
        f"Seats were busy {100 * figures['seat_busy_share']:.1f}% of the time",
    ):
        assert said in text, said
    assert figures["memory_model_error_pct"] <= 3.3


def losses(page: str) -> dict[str, tuple[float, float]]:
    """Name -> loss and learning rate of the first table of a page in results/reference."""
    found: dict[str, tuple[float, float]] = {}
    for line in page.splitlines():
        cells = [cell.strip() for cell in line.split("|")[1:-1]]
        if len(cells) >= 3 and re.fullmatch(r"[\d.]+", cells[1]) and re.match(r"[\d.]", cells[2]):
            name = cells[0].partition(" (")[0].partition(" of ")[0]
            found.setdefault(name, (float(cells[1]), float(cells[2])))  # later tables compare with peft
    return found


@pytest.mark.parametrize(("page", "line"), [("demo.md", "the demo"), ("real.md", "`make real`")])
def test_what_it_found_is_what_the_pages_say(page: str, line: str) -> None:
    said = next(row for row in README.splitlines() if row.startswith(f"| {line}"))
    found = losses((REFERENCE / page).read_text(encoding="utf-8"))
    (best, rate), (default, tables) = found["best"], found["guideline default"]
    assert f"| {number(float(f'{rate:.1e}'))} | {rate / tables:.0f} times higher |" in said
    assert f"| {100 * (default - best) / best:.1f}%" in said
