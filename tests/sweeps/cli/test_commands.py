"""The commands, their options and `sweeps plan`, as far as they go without Ray."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from sweeps.cli import app
from tests.sweeps.cli.calling import Call, edit, listing

COMMANDS = typer.main.get_command(app).commands  # type: ignore[attr-defined]


def test_plan_fits_the_terminal_and_writes_nothing(call: Call, folder: Path) -> None:
    before = listing(folder)
    answer = call("plan", folder / "s.yaml")
    assert answer.code == 0, answer.err
    assert "4 trials of 100 steps" in answer.out
    assert "scenario.general" in answer.out
    assert max(len(line) for line in answer.out.splitlines()) <= 100
    assert listing(folder) == before


def test_plan_as_json_holds_the_space_and_the_first_trials(call: Call, folder: Path) -> None:
    answer = call("plan", folder / "s.yaml", "--json", "--set", "trials=9")
    assert answer.code == 0, answer.err
    read = json.loads(answer.out)
    assert read["trials"] == 9
    assert read["first_trials"][0]["label"] == "guideline default"
    assert read["space"]["dimensions"][0]["name"] == "learning_rate"
    (stop,) = read["data"]["rendering"]["train"]["stop_tokens"]
    assert stop["num_turns"] == read["data"]["train"]["num_used"] == 48


def test_plan_shows_one_record_with_the_trained_tokens_marked(call: Call, folder: Path) -> None:
    answer = call("plan", folder / "s.yaml", "--show-record", "2")
    assert answer.code == 0, answer.err
    # The tiny model's tokenizer knows few letters; what it makes of the rest is no matter here.
    assert "training record 2 of 48" in answer.out
    assert f"{folder / 'data.jsonl'}:" in answer.out.replace("\n", "")
    assert "stop token: " in answer.out
    prompt, trained = answer.out.rsplit("\n\n", 1)[1].split("⟦")
    assert prompt.startswith("w")
    assert trained.rstrip().endswith("⟧")
    for number in ("0", "49"):
        answer = call("plan", folder / "s.yaml", "--show-record", number)
        assert answer.code == 2
        assert f"from 1 to 48, the number of training records; got {number}" in answer.err


@pytest.mark.parametrize("setting", ["trials", "trials=0", "trails=3", "training.max_steps=x"])
def test_a_bad_setting_is_exit_code_2(call: Call, folder: Path, setting: str) -> None:
    answer = call("plan", folder / "s.yaml", "--set", setting)
    assert answer.code == 2
    assert setting.partition("=")[0] in answer.err


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(call: Call, command: str) -> None:
    answer = call(command, "--help")
    assert answer.code == 0
    assert f" {command} " in answer.out.partition("Usage: ")[2].splitlines()[0]
    assert COMMANDS[command].help.split()[0] in answer.out
    assert all(option.help for option in COMMANDS[command].params if option.name != "help")
    assert command in call("--help").out


def test_a_misspelt_command_or_option_is_exit_code_2(call: Call, folder: Path) -> None:
    assert call("plann", folder / "s.yaml").code == 2
    assert call("plan", folder / "s.yaml", "--jsonn").code == 2
    assert call("export", folder).code == 2


def test_the_installed_command_ends_with_the_code(folder: Path) -> None:
    edit(folder / "s.yaml", "trials: 4", "trials: four")
    done = subprocess.run(
        [sys.executable, "-m", "sweeps", "plan", "s.yaml"], cwd=folder, capture_output=True, text=True
    )
    assert done.returncode == 2
    assert done.stderr.startswith("error: s.yaml:6: ")
    assert done.stdout == ""


def test_reading_a_bad_file_does_not_wait_for_torch_or_ray(folder: Path) -> None:
    edit(folder / "s.yaml", "trials: 4", "trials: four")
    script = (
        "import sys\nfrom sweeps.cli import main\n"
        "try:\n    main(['plan', 's.yaml'])\nexcept SystemExit as end:\n"
        "    print(end.code, [name for name in ('torch', 'ray', 'transformers') if name in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=folder, capture_output=True, text=True)
    assert done.stdout == "2 []\n", done.stdout + done.stderr
