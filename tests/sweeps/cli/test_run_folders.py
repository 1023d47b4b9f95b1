"""What is read from run folders and written to them, and which folders are none."""

from __future__ import annotations

import json
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import optuna
import pytest

from sweeps.artifacts.run_folder import check_run_folder, write_run_folder
from sweeps.errors import RunFolderError
from sweeps.keeper.keeper import Keeper
from sweeps.sweep import Sweep
from tests.sweeps.cli.calling import Call, listing


def test_a_run_folder_of_another_sweep_is_refused_and_left_alone(call: Call, folder: Path, ran: Path) -> None:
    before = listing(ran)
    answer = call("run", folder / "s.yaml", "--set", "training.max_steps=50")
    assert answer.code == 2
    assert "training.max_steps: the study has 100, this sweep 50" in answer.err
    shutil.copytree(folder / "model", folder / "model2")
    answer = call("run", folder / "s.yaml", "--set", f"model={folder / 'model2'}")
    assert answer.code == 2
    assert "belongs to another sweep" in answer.err
    assert listing(ran) == before


def test_a_folder_with_files_of_someone_else_is_no_run_folder(call: Call, folder: Path) -> None:
    (folder / "runs" / "small").mkdir(parents=True)
    (folder / "runs" / "small" / "thesis.txt").write_text("years of work")
    before = listing(folder)
    answer = call("run", folder / "s.yaml")
    assert answer.code == 2
    assert "so it is not a run folder" in answer.err
    assert listing(folder) == before


def test_a_run_that_was_killed_at_its_first_write_can_be_started_again(tmp_path: Path) -> None:
    config: Any = SimpleNamespace(run_folder=tmp_path)
    (tmp_path / ".sweep.yaml.0a1b2c3d.tmp").write_text("name: sm")
    check_run_folder(config)
    (tmp_path / "study.db").touch()
    with pytest.raises(RunFolderError, match="so it is not a run folder"):
        check_run_folder(config)


@pytest.mark.parametrize("path", ["s.yaml", "runs/small"])
def test_status_reads_a_sweep_file_or_a_run_folder(call: Call, folder: Path, ran: Path, path: str) -> None:
    before = listing(folder)
    answer = call("status", folder / path)
    assert answer.code == 0, answer.err
    assert "4 of 4 trials" in answer.out
    assert "untouched base 3.500" in answer.out
    read = json.loads(call("status", folder / path, "--json").out)
    assert (read["finished"], read["target"]) == (4, 4)
    assert read["best"]["eval_loss"] <= read["default_loss"]
    assert listing(folder) == before


def test_a_sweep_that_never_started_is_said_so_and_not_created(call: Call, folder: Path) -> None:
    before = listing(folder)
    for command in (("status",), ("verdict",), ("report",), ("export", "--to", "yaml")):
        answer = call(command[0], folder / "s.yaml", *command[1:])
        assert answer.code == 2, command
        assert "has no study yet; start it with `sweeps run`" in answer.err
    assert listing(folder) == before


def test_the_verdict_is_printed_and_written(call: Call, ran: Path) -> None:
    answer = call("verdict", ran)
    assert answer.code == 0, answer.err
    assert answer.out.startswith("Use   learning_rate")
    assert "scenario.general" not in answer.out
    assert "scenario.general" in call("verdict", ran, "--rows").out
    rows = {row["id"] for row in json.loads((ran / "verdict.json").read_text())["rows"]}
    assert "scenario.general" in rows
    assert (ran / "verdict.md").is_file()


def test_replicates_in_the_same_storage_give_the_verdict_its_words(call: Call, ran: Path) -> None:
    sweep = Sweep.load(ran, check_files=False)
    best = sweep.study().best_trial.params
    arms = [
        {"name": "best", "role": "best", "values": best, "rows": []},
        {
            "name": "row",
            "role": "row",
            "values": best | {"learning_rate": 2e-4},
            "rows": ["scenario.general"],
        },
    ]
    # No word calls the rate wrong before the sweep's own trial with it, all else its own, ran again too.
    tried = next(trial for trial in sweep.study().trials if trial.params["learning_rate"] == 2e-4)
    arms.append({"name": "retuned", "role": "retuned", "values": tried.params, "rows": ["scenario.general"]})
    confirm = optuna.create_study(storage=sweep.storage_url, study_name="small.confirm")
    confirm.set_user_attr("arms", arms)
    confirm.set_user_attr("margin", 0.02)
    for seed in range(4):
        for loss, entry in zip((2.0, 2.2, 2.3), arms, strict=True):
            confirm.add_trial(
                optuna.trial.create_trial(
                    value=loss + 0.01 * seed, user_attrs={"arm": entry["name"], "seed": seed}
                )
            )
    answer = call("verdict", ran)
    assert answer.code == 0, answer.err
    assert json.loads((ran / "verdict.json").read_text())["margin"] == 0.02
    answer = call("verdict", ran, "--margin", 1)
    assert answer.code == 0, answer.err
    read = json.loads((ran / "verdict.json").read_text())
    assert read["margin"] == 0.01
    assert read["replicates"]["rounds"] == 4
    assert call("report", ran, "--margin", 1).code == 0
    assert "Differences up to 1% of the best" in (ran / "report.html").read_text()
    assert call("report", ran).code == 0
    assert "Differences up to 2% of the best" in (ran / "report.html").read_text()
    row = next(row for row in read["rows"] if row["id"] == "scenario.general")
    assert row["comparison"]["effect"] == pytest.approx(0.2)
    assert row["verdict"] in ("too_low", "too_high")
    confirm.set_user_attr("margin", 2)
    answer = call("verdict", ran)
    assert answer.code == 2
    assert "the margin of study 'small.confirm' must be above 0 and at most 0.5; got 2" in answer.err
    confirm.set_user_attr("arms", [])
    answer = call("verdict", ran)
    assert answer.code == 2
    assert "is not a confirm study" in answer.err


def test_the_report_is_one_file_in_the_run_folder(call: Call, ran: Path) -> None:
    before = listing(ran)
    answer = call("report", ran)
    assert (answer.code, answer.out) == (0, f"wrote {ran / 'report.html'}\n"), answer.err
    assert {name: content for name, content in listing(ran).items() if name != "report.html"} == before
    page = (ran / "report.html").read_text()
    assert "Use learning_rate" in page
    assert (ran / "sweep.yaml").read_text().splitlines()[-1] in page


@pytest.mark.parametrize("command", ["verdict", "report"])
def test_a_margin_that_is_none_is_refused_and_nothing_is_written(call: Call, ran: Path, command: str) -> None:
    before = listing(ran)
    answer = call(command, ran, "--margin", "nan")
    assert (answer.code, answer.out) == (2, "")
    assert "the margin is above 0 and at most 50 percent of the loss; got nan" in answer.err
    assert listing(ran) == before


@pytest.mark.parametrize(
    ("command", "taken"),
    [
        (("verdict",), "verdict.json"),
        (("report",), "report.html"),
        (("export", "--to", "yaml", "--output", "{}/sweep.yaml"), "sweep.yaml"),
        (("export", "--to", "yaml", "--output", "{}/sweep.yaml/below"), "sweep.yaml"),
    ],
)
def test_a_place_that_cannot_be_written_is_one_line_and_exit_code_2(
    call: Call, ran: Path, command: tuple[str, ...], taken: str
) -> None:
    if not (ran / taken).exists():
        (ran / taken).mkdir()
    before = listing(ran)
    verb, *options = (word.format(ran) for word in command)
    answer = call(verb, ran, *options)
    assert (answer.code, answer.out) == (2, "")
    assert str(ran / taken) in answer.err
    assert len(answer.err.splitlines()) == 1
    assert listing(ran) == before


def test_before_any_trial_has_ended_the_verdict_says_so_and_there_is_nothing_to_export(
    call: Call, folder: Path
) -> None:
    sweep = Sweep.load(folder / "s.yaml")
    write_run_folder(sweep.config)
    keeper = Keeper(sweep.plan().study_spec, sweep.storage_url)
    keeper.ask(0, [0])
    keeper._storage.engine.dispose()
    before = listing(sweep.run_folder)
    answer = call("export", sweep.run_folder, "--to", "yaml")
    assert answer.code == 2
    assert "no trial" in answer.err
    assert listing(sweep.run_folder) == before
    answer = call("verdict", sweep.run_folder)
    assert answer.code == 0
    assert "nothing yet: no trial has finished its full budget." in answer.out
    assert call("report", sweep.run_folder).code == 0
    page = (sweep.run_folder / "report.html").read_text()
    assert "No trial has finished its full budget." in page


@pytest.mark.parametrize(
    ("lose", "said"),
    [
        (lambda file: file.unlink(), r"sweep.yaml:\d+: data.train: the file '.*data.jsonl' does not exist"),
        (lambda file: file.write_bytes(file.read_bytes()[:-9]), r"data.jsonl:60: broken JSON"),
        (lambda file: file.write_text(file.read_text() * 2), r"train_data: the study has '\w+', this sweep"),
    ],
)
def test_data_that_is_lost_or_changed_before_a_run_goes_on_is_bad_input(
    call: Call, folder: Path, ran: Path, lose: Callable[[Path], object], said: str
) -> None:
    lose(folder / "data.jsonl")
    before = listing(ran)
    answer = call("run", ran, "--set", "trials=6")
    assert answer.code == 2
    assert re.search(said, answer.err), answer.err
    assert listing(ran) == before
    assert call("status", ran).code == 0


@pytest.mark.parametrize("place", ["the start of the command", "the plan"])
def test_ctrl_c_before_anything_runs_is_no_error(
    call: Call, folder: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    if place == "the plan":
        monkeypatch.setattr(Sweep, "plan", interrupt)
    else:
        loading = type("Loading", (), {"__getattr__": interrupt})()
        monkeypatch.setitem(sys.modules, "results.errors", loading)
    before = listing(folder)
    answer = call("run", folder / "s.yaml")
    assert (answer.code, answer.err) == (130, "")
    assert listing(folder) == before
