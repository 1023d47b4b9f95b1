"""The commands, their options and `sweeps plan`, as far as they go without Ray."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from sweeps.cli.main import app
from tests.sweeps.cli.calling import Call, edit, listing

COMMANDS = typer.main.get_command(app).commands  # type: ignore[attr-defined]


def test_plan_fits_the_terminal_and_writes_nothing(call: Call, folder: Path) -> None:
    before = listing(folder)
    answer = call("plan", folder / "s.yaml")
    assert answer.code == 0, answer.err
    assert "4 of 100 steps: 1 with the tables' values" in answer.out
    assert "CPU core" in answer.out
    assert "scenario.general" not in answer.out
    more = call("plan", folder / "s.yaml", "--details")
    assert "scenario.general" in more.out
    assert "a seat is a place for one trial" in more.out
    assert max(len(line) for line in more.out.splitlines()) <= 100
    for line in (answer.out + more.out).splitlines():
        assert line == line.rstrip()
    assert listing(folder) == before


def test_plan_for_a_gpu_that_is_not_here(call: Call, folder: Path) -> None:
    answer = call("plan", folder / "s.yaml", "--gpu", "24GiB", "--gpus", "2")
    assert answer.code == 0, answer.err
    assert "on each of 2 GPUs" in answer.out
    assert "a GPU with 24 GiB (not this machine)" in answer.out
    assert "unknown until it runs" in answer.out
    read = json.loads(call("plan", folder / "s.yaml", "--gpu", "H200", "--json").out)
    assert read["device"] == {"name": "H200", "is_here": False}
    assert (read["fits"], read["workers"], read["memory_available_gib"]) == (True, 1, 141)
    assert (read["seats"], read["context"]["compute_dtype"]) == (4, "bfloat16")
    for arguments in (("--gpu", "toaster"), ("--gpus", "2"), ("--gpu", "24GiB", "--gpus", "0")):
        refused = call("plan", folder / "s.yaml", *arguments)
        assert (refused.code, refused.out) == (2, ""), arguments
        assert "--gpu" in refused.err


def test_plan_measures_on_this_machine_alone(call: Call, folder: Path) -> None:
    refused = call("plan", folder / "s.yaml", "--measure", "--gpu", "24GiB")
    assert (refused.code, refused.out) == (2, "")
    assert "leave one out" in refused.err
    assert json.loads(call("plan", folder / "s.yaml", "--json").out)["measured"] is None


def test_plan_as_json_holds_the_space_and_the_first_trials(call: Call, folder: Path) -> None:
    answer = call("plan", folder / "s.yaml", "--json", "--set", "trials=19")
    assert answer.code == 0, answer.err
    read = json.loads(answer.out)
    assert read["trials"] == 19
    assert len(read["first_trials"]) == 4  # as many as run
    assert read["first_trials"][0]["label"] == "guideline default"
    assert len(read["space"]["first_trials"]) == 4
    assert read["trial_kinds"] == {"tables": 4, "startup": 6, "sampler": 9}
    assert read["time"]["seconds"] > 0
    assert read["space"]["dimensions"][0]["name"] == "learning_rate"
    (stop,) = read["data"]["rendering"]["train"]["stop_tokens"]
    assert stop["num_turns"] == read["data"]["train"]["num_used"] == 48


def test_plan_says_what_becomes_of_the_records(call: Call, folder: Path) -> None:
    records = (folder / "data.jsonl").read_text().splitlines()
    long = [json.dumps({"prompt": "x" * 64, "completion": f"gone {n}"}) for n in range(200)]
    (folder / "data.jsonl").write_text("\n".join([*records, *long]))
    (folder / "e.jsonl").write_text("\n".join(records[:4]))
    settings = (f"data.eval={folder / 'e.jsonl'}", "data.max_length=60")
    changes = [word for setting in settings for word in ("--set", setting)]
    answer = call("plan", folder / "s.yaml", *changes)
    assert answer.code == 0, answer.err
    assert "warning: training: max_length 60 loses" in answer.out
    assert "200 dropped (nothing of their answers is left)" in " ".join(answer.out.split())
    as_json = call("plan", folder / "s.yaml", *changes, "--json")
    account = json.loads(as_json.out)["data"]
    assert (account["train"]["num_dropped"], account["train"]["num_in_eval"]) == (200, 4)
    assert [f"warning: {text}" for text in account["warnings"]] == as_json.err.splitlines()
    assert account["train"]["num_records"] == len(records) + 200


def test_plan_shows_one_record_and_writes_nothing(call: Call, folder: Path) -> None:
    before = listing(folder)
    answer = call("plan", folder / "s.yaml", "--show-record", "2")
    assert answer.code == 0, answer.err
    record = json.loads((folder / "data.jsonl").read_text().splitlines()[1])
    assert f"data.jsonl:2: {'trained' if 'trained' in answer.out else 'held out'}" in answer.out
    # The small tokenizer writes a blank between its tokens, which are characters.
    assert f"{record['prompt']}⟦{record['completion']}<eos>⟧" in answer.out.replace(" ", "")
    shown = json.loads(call("plan", folder / "s.yaml", "--show-record", "2", "--json").out)
    (sequence,) = shown["sequences"]
    assert [piece["is_trained"] for piece in sequence["pieces"]] == [False, True]
    assert sequence["stops"] == ["<eos>"]
    beyond = call("plan", folder / "s.yaml", "--show-record", "9999")
    assert (beyond.code, beyond.out) == (2, "")
    assert f"has the records 1 to {shown['num_records']}; there is no record 9,999" in beyond.err
    assert listing(folder) == before


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
        "import sys\nfrom sweeps.cli.main import main\n"
        "try:\n    main(['plan', 's.yaml'])\nexcept SystemExit as end:\n"
        "    print(end.code, [name for name in ('torch', 'ray', 'transformers') if name in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=folder, capture_output=True, text=True)
    assert done.stdout == "2 []\n", done.stdout + done.stderr
