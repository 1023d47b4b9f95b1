"""What the command line imports: nothing large before a command needs it."""

from __future__ import annotations

import importlib.metadata
import os
import subprocess
import sys
from pathlib import Path

import pytest

LARGE = (
    "torch",
    "transformers",
    "ray",
    "optuna",
    "sqlalchemy",
    "scipy",
    "pandas",
    "numpy",
    "yaml",
)
SCRIPT = """
import sys
from sweeps.cli.main import main
try:
    main(sys.argv[2:])
except SystemExit as end:
    print(end.code, *(name for name in sys.argv[1].split(",") if name in sys.modules))
"""


def imported_by(*arguments: object) -> list[str]:
    """Exit code and large packages that are loaded at the end of a command, and what it printed before."""
    command = [sys.executable, "-c", SCRIPT, ",".join(LARGE), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.stderr == ""
    return done.stdout.splitlines()


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["run", "--help"]])
def test_help_and_version_import_nothing_large(arguments: list[str]) -> None:
    assert imported_by(*arguments)[-1] == "0"


def test_the_version_is_that_of_the_package() -> None:
    assert imported_by("--version")[0] == f"sweeps {importlib.metadata.version('qlora-sweeps')}"


def test_status_imports_neither_torch_nor_ray_nor_pandas_nor_scipy(ran: Path) -> None:
    code, *packages = imported_by("status", ran)[-1].split()
    assert code == "0"
    assert not {"torch", "transformers", "ray", "pandas", "scipy"} & set(packages)
    assert "optuna" in packages


def test_a_second_run_is_refused_before_anything_large_is_imported(ran: Path) -> None:
    """The keeper of `ran` still holds the study, in this process, which lives."""
    command = [sys.executable, "-c", SCRIPT, ",".join(LARGE), "run", str(ran)]
    done = subprocess.run(command, capture_output=True, text=True)
    code, *packages = done.stdout.split()
    assert code == "2"
    assert "is running already (process " in done.stderr
    assert f"`sweeps stop {ran}` ends it" in done.stderr
    assert not {"torch", "transformers", "ray", "pandas", "scipy"} & set(packages)


def test_a_finished_sweep_is_answered_without_torch_or_ray(finished: Path) -> None:
    *lines, last = imported_by("run", finished)
    code, *packages = last.split()
    assert code == "0"
    assert not {"torch", "transformers", "ray"} & set(packages)
    text = " ".join(lines)
    assert "Nothing was left to run." in text
    assert "Loss" in text


def test_what_init_cannot_do_is_said_before_anything_large_is_imported(tmp_path: Path) -> None:
    (tmp_path / "there.yaml").write_text("mine")
    (tmp_path / "train.jsonl").write_text('{"text": "a"}\n')
    (tmp_path / "empty.jsonl").write_text("")
    for changed, words in (
        ({"file": "there.yaml"}, ["there.yaml: the file exists already; it is kept."]),
        (
            {"scenario": "genral", "train": "empty.jsonl", "eval": "gone.jsonl", "model": "./gone"},
            [
                "--scenario must be one of the guideline tables'; got 'genral'. Did you mean 'general'?",
                "model: the folder ",
                "data.train: a dataset must have at least one record",
                "data.eval: the file ",
            ],
        ),
    ):
        given = {"file": "new.yaml", "model": "owner/model", "train": "train.jsonl", "eval": "train.jsonl"}
        file, *options = (given | {"scenario": "general"} | changed).items()
        arguments = [text for name, value in options for text in (f"--{name}", value)]
        command = [sys.executable, "-c", SCRIPT, ",".join(LARGE), "init", file[1], *arguments]
        done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
        for word in words:
            assert word in " ".join(done.stderr.split()), done.stderr
        code, *packages = done.stdout.split()
        assert code == "2"
        assert not {"torch", "transformers", "ray", "optuna", "pandas", "scipy"} & set(packages)
    assert not (tmp_path / "new.yaml").exists()


def test_commands_that_train_themselves_wait_for_threads_as_workers_do():
    """`plan --measure` on a busy machine: spinning threads took several times as long."""
    script = (
        "import os\n"
        "from sweeps.cli.main import main\n"
        "try:\n    main(['--version'])\n"
        "except SystemExit:\n    print(os.environ['OMP_WAIT_POLICY'])\n"
    )
    for given in ({}, {"OMP_WAIT_POLICY": "ACTIVE"}):
        environment = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"} | given
        done = subprocess.run(
            [sys.executable, "-c", script], capture_output=True, text=True, env=environment, check=True
        )
        assert done.stdout.splitlines()[-1] == given.get("OMP_WAIT_POLICY", "PASSIVE")
