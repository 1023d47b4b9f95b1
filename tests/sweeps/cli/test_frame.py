"""Help, usage errors, the run that is meant when none is named, and completion."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from sweeps.cli.main import Sweeps, app
from tests.sweeps.cli.calling import Call, listing
from tests.terminal import in_terminal

GROUP = typer.main.get_command(app)
COMMANDS = GROUP.commands  # type: ignore[attr-defined]
EXAMPLES = [line for command in COMMANDS.values() for line in (command.epilog or "").splitlines()]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory without runs."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NO_COLOR", "1")
    return tmp_path


def make_runs(here: Path, *names: str) -> None:
    """Run folders as far as they can be told from other folders, the last one the newest."""
    for age, name in enumerate(reversed(names)):
        file = here / "runs" / name / "sweep.yaml"
        file.parent.mkdir(parents=True)
        file.write_text("name: x\n")
        os.utime(file, (1e9 - age, 1e9 - age))


# --- help -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", [None, *COMMANDS])
def test_help_fits_80_columns_and_breaks_no_word(
    call: Call, here: Path, monkeypatch: pytest.MonkeyPatch, command: str | None
) -> None:
    words = [] if command is None else [command]
    shown = {}
    for columns in (80, 200):
        monkeypatch.setenv("COLUMNS", str(columns))
        shown[columns] = call(*words, "--help").out
    assert max(map(len, shown[80].splitlines())) <= 80
    assert shown[80].split() == shown[200].split()
    assert not any(text in shown[80] for text in ("<bool>", "<path>", "<str>", "<int>", "…", "│"))
    assert "Example" in shown[80]


@pytest.mark.parametrize("line", EXAMPLES)
def test_an_example_can_be_parsed(here: Path, line: str) -> None:
    _, name, *rest = shlex.split(line.partition(" > ")[0])
    with GROUP.make_context("sweeps", []) as parent:
        context = COMMANDS[name].make_context(name, rest, parent=parent)
    assert context.command_path == f"sweeps {name}"


def test_every_command_has_an_example_of_its_own() -> None:
    for name, command in COMMANDS.items():
        lines = (command.epilog or "").splitlines()
        assert lines, name
        assert all(line.split()[:2] == ["sweeps", name] for line in lines), lines


def test_what_an_option_or_argument_takes_has_a_name() -> None:
    for command in COMMANDS.values():
        for param in command.params:
            assert param.metavar or getattr(param, "is_flag", False), (command.name, param.name)


def test_commands_are_listed_in_one_line_each_in_the_order_of_their_use(
    call: Call, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    lines = call("--help").out.splitlines()
    places = {name: [i for i, line in enumerate(lines) if line.startswith(f"  {name} ")] for name in COMMANDS}
    assert all(len(found) == 1 for found in places.values()), places
    order = [name for _, names in Sweeps.panels for name in names if name in COMMANDS]
    assert set(order) == set(COMMANDS)
    assert sorted(order, key=lambda name: places[name]) == order
    panels = [title for title, _ in Sweeps.panels]
    told = lines[lines.index(f"{panels[0]}:") : lines.index("Options:")]
    rest = [line for line in told if line and line.rstrip(":") not in panels]
    assert all(line[2] != " " for line in rest), rest


def test_in_a_terminal_help_is_plain_text_with_bold_titles(here: Path) -> None:
    seen = in_terminal([sys.executable, "-m", "sweeps", "status", "--help"], cwd=Path.cwd())
    assert seen.code == 0
    assert seen.lines[0] == "Usage: sweeps status [RUN] [OPTIONS]", seen.text
    assert "  --json  print JSON" in seen.lines
    assert "  sweeps status runs/mine" in seen.lines


# --- usage errors ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("statu", "there is no command 'statu'. Did you mean 'status'?"),
        ("zzz", "there is no command 'zzz'. `sweeps --help` lists them."),
        ("status x --jsn", "sweeps status has no option '--jsn'. Did you mean '--json'?"),
        ("run x --trails 3", "sweeps run has no option '--trails'. Did you mean '--set trials=...'?"),
        ("status x --zzz", "sweeps status has no option '--zzz'. `sweeps status --help` lists its options."),
        ("status x y", "sweeps status takes no further argument; got 'y'. `sweeps status --help` shows what"),
        ("export x", "sweeps export needs --to TARGET: peft, "),
        ("table-verdict", "sweeps table-verdict needs TABLE: CSV file"),
        ("export x --to", "sweeps export: --to needs a value; `sweeps export --help` shows which"),
        ("demo --trials many", "sweeps demo: --trials is a whole number; got 'many'"),
        ("confirm x --hours soon", "sweeps confirm: --hours is a number; got 'soon'"),
        ("results x --top 0", "sweeps results: --top is at least 1; got '0'"),
        ("dashboard x --port 99999", "sweeps dashboard: --port is at most 65535; got '99999'"),
        ("replay x", "sweeps replay needs N: number of the trial"),
    ],
)
def test_a_usage_error_is_one_line_with_the_rule_and_the_nearest_name(
    call: Call, here: Path, words: str, told: str
) -> None:
    answer = call(*words.split())
    assert (answer.code, answer.out) == (2, "")
    assert answer.err.startswith(f"error: {told}")
    assert answer.err.count("\n") == 1
    assert listing(here) == {}


def test_without_a_command_the_help_is_shown(call: Call, here: Path) -> None:
    answer = call()
    assert (answer.code, answer.err) == (0, "")
    assert answer.out == call("--help").out


# --- the run that is meant ------------------------------------------------------------------------


def test_the_only_run_is_read_and_named(call: Call, folder: Path, ran: Path, monkeypatch) -> None:
    monkeypatch.chdir(folder)
    given, found = call("results", "--csv", ran), call("results", "--csv")
    assert (found.code, found.out) == (0, given.out)
    assert found.err == "run: runs/small (the only one in runs/)\n"
    assert json_of(call("status", "--json").out)


def json_of(text: str) -> object:
    import json

    return json.loads(text)


def test_a_number_alone_is_the_trial_of_the_only_run(
    call: Call, folder: Path, ran: Path, monkeypatch
) -> None:
    monkeypatch.chdir(folder)
    answer = call("replay", "77")
    assert answer.code == 2
    assert "run: runs/small" in answer.err
    assert "77" in answer.err.partition("error")[2]


@pytest.mark.parametrize("command", ["status", "stop", "confirm", "verdict", "export --to trl", "replay 3"])
def test_of_several_runs_none_is_guessed(call: Call, here: Path, command: str) -> None:
    make_runs(here, "old", "a b", "new")
    before = listing(here)
    answer = call(*command.split())
    name = command.split()[0]
    assert (answer.code, answer.out) == (2, "")
    assert answer.err.splitlines() == [
        "error: runs/ holds 3 runs, newest first; name one:",
        f"  sweeps {name} runs/new",
        f"  sweeps {name} 'runs/a b'",
        f"  sweeps {name} runs/old",
    ]
    assert listing(here) == before


def test_without_a_run_the_error_says_how_to_begin(call: Call, here: Path) -> None:
    (here / "runs" / "no-run").mkdir(parents=True)
    answer = call("status")
    assert answer.code == 2
    assert (
        answer.err
        == "error: there is no run in runs/ here; name one: sweeps status RUN, or start one: sweeps run\n"
    )


def test_an_error_in_another_argument_comes_before_the_search_for_a_run(call: Call, here: Path) -> None:
    make_runs(here, "one", "two")
    assert call("results", "--top", "x").err == "error: sweeps results: --top is a whole number; got 'x'\n"
    assert "--to TARGET" in call("export").err


def test_plan_and_run_take_the_sweep_file_here(call: Call, folder: Path, monkeypatch) -> None:
    monkeypatch.chdir(folder)
    for command in ("plan", "run"):
        answer = call(command)
        assert answer.code == 2
        assert answer.err.startswith(
            "error: there is no sweep.yaml here; `sweeps init --model MODEL --train DATA`"
        )
    shutil.copy("s.yaml", "sweep.yaml")
    assert "4 of 100 steps" in call("plan").out
    answer = call("run", "--set", "trials=x")
    assert answer.code == 2
    assert "trials" in answer.err


# --- completion -----------------------------------------------------------------------------------


def completed(here: Path, line: str) -> list[str]:
    """What bash offers at the end of a line."""
    environment = {
        "_SWEEPS_COMPLETE": "complete_bash",
        "COMP_WORDS": line,
        "COMP_CWORD": str(line.count(" ")),
    }
    done = subprocess.run(
        [sys.executable, "-m", "sweeps"],
        cwd=here,
        env=os.environ | environment,
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.split()


def test_the_shell_completes_commands_options_and_run_folders(here: Path, monkeypatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[3]))
    make_runs(here, "old", "new")
    (here / "sweep.yaml").write_text("name: x\n")
    assert completed(here, "sweeps sta") == ["status"]
    assert completed(here, "sweeps export --st") == ["--strict"]
    assert completed(here, "sweeps status ") == ["runs/new", "runs/old", "sweep.yaml"]
    assert completed(here, "sweeps status runs/o") == ["runs/old"]
    assert completed(here, "sweeps status nothing") == []
    assert completed(here, "sweeps init --from ") == ["runs/new", "runs/old"]
