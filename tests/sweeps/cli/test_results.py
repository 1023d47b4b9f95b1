"""Results in the terminal, in files and in a notebook."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path

import pandas as pd
import pytest
from optuna.distributions import FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial

from results.errors import AdapterFilesError
from results.render.trials_table import ranked, trials_table
from results.tables import read_tables, reports_frame, trials_frame, write_tables
from sweeps import load
from sweeps.cli.main import main
from sweeps.errors import RunFolderError
from sweeps.storage.optuna_private import storage_of, trial_id_of
from tests.results.conftest import study, trial


@pytest.fixture
def shown(capsys, monkeypatch):
    """`shown("results", ...)`: what the command prints, at a width of so many cells."""

    def run(*arguments: object, width: int = 200) -> str:
        monkeypatch.setattr("sweeps.cli.watch_commands.console.width", width)
        capsys.readouterr()
        main_ends(*arguments)
        return str(capsys.readouterr().out)

    return run


def main_ends(*arguments: object) -> None:
    with pytest.raises(SystemExit) as ended:
        main([str(argument) for argument in arguments])
    assert ended.value.code == 0


def test_trials_come_best_first_and_a_partial_loss_stands_in_brackets(watched, shown):
    sweep = watched(trials=8).sweep
    lines = shown("results", sweep.run_folder).splitlines()
    assert lines[0].split()[:3] == ["trial", "eval_loss", "outcome"]
    assert lines[0].split()[-1] == "reason"
    frame = trials_frame(sweep.study())
    complete = frame[frame["eval_loss"].notna()].sort_values(["eval_loss", "number"])
    assert [int(line.split()[0]) for line in lines[1 : 1 + len(complete)]] == complete["number"].tolist()
    partial = lines[1 + len(complete) : 1 + len(frame)]
    assert partial
    for line in partial:
        assert re.match(r" *\d+ +(\(\d\.\d{3}\) +pruned at \d+%|diverged )", line)
    assert lines[1 + len(frame) :] == ["In brackets: the loss before the end of the training."]
    assert "\x1b" not in "".join(lines)


def test_a_narrow_terminal_gets_short_columns_that_hold_everything_searched(watched, shown):
    folder = watched(trials=4).folder
    for width in (60, 80, 120):
        lines = shown("results", folder, width=width).splitlines()
        assert max(map(len, lines)) <= width
        assert lines[0].split() == ["trial", "loss", "outcome", "lr", "emb_lr", "sched", "warmup"]


def seven(*trials: FrozenTrial) -> list[str]:
    lines = trials_table(ranked(trials_frame(study(*trials, space=None))), width=80)
    return [line.plain for line in lines]


def with_seven(number: int, made: FrozenTrial) -> FrozenTrial:
    """Rank, alpha and dropout were searched too."""
    for name, value in (("lora_r", 16), ("lora_alpha", 32), ("lora_dropout", 0.05)):
        made.params = made.params | {name: value * (1 + number % 2)}
        high = IntDistribution(1, 256) if isinstance(value, int) else FloatDistribution(0, 1)
        made.distributions = made.distributions | {name: high}
    return made


def test_seven_searched_hyperparameters_fit_into_80_columns():
    trials = [trial(2.0, lr=1.23e-4, ratio=0.111, scheduler="cosine", warmup=0.123)]
    trials += [trial(outcome="pruned", lr=1.23e-4, reports={40: 12.5}), trial(2.1, scheduler="constant")]
    lines = seven(*(with_seven(number, made) for number, made in enumerate(trials)))
    names = ["trial", "loss", "outcome", "lr", "emb_lr", "sched", "warmup", "r", "alpha", "dropout"]
    assert lines[0].split() == names
    assert lines[1].split() == [
        "0",
        "2.000",
        "done",
        "1.23e-4",
        "1.37e-5",
        "cosine",
        "12%",
        "16",
        "32",
        "0.05",
    ]
    assert "(12.500) pruned 40%" in lines[3]
    assert max(map(len, lines)) <= 80


def test_what_has_no_room_is_named():
    found = trials_table(ranked(trials_frame(study(trial(2.0)))), width=30)
    assert found[0].plain.split() == ["trial", "loss", "outcome", "lr"]
    assert found[-1].plain.startswith("No room for ")
    assert max(len(line.plain) for line in found) <= 30


def test_failed_trials_say_why_in_one_line_each():
    reason = "CUDA error: " + "an illegal memory access was encountered " * 5 + "at the end"
    lines = seven(trial(outcome="failed", reason=reason), trial(outcome="pruned", reports={40: 2.0}))
    told = [line for line in lines if line.startswith("trial 0: ")]
    assert len(told) == 1
    assert len(told[0]) <= 80
    assert told[0].startswith("trial 0: CUDA error: an illegal")
    assert told[0].endswith("at the end")
    assert seven() == ["No trial yet."]


def test_a_running_sweep_has_results_too(watched, shown):
    folder = watched(trials=20, turns=2).folder
    outcomes = [line.split() for line in shown("results", folder).splitlines()[1:]]
    assert any("running" in words for words in outcomes)
    assert any("waiting" in words for words in outcomes)


def test_top_json_and_csv(watched, shown):
    sweep = watched(trials=6).sweep
    frame = ranked(trials_frame(sweep.study()))
    assert shown("results", sweep.run_folder, "--top", 2).splitlines()[-1] == "2 of 6 trials"
    records = json.loads(shown("results", sweep.run_folder, "--top", 2, "--json"))
    assert [record["number"] for record in records] == frame["number"].tolist()[:2]
    assert records[0]["eval_loss"] == frame.loc[0, "eval_loss"]
    assert records[0]["started"] == frame.loc[0, "started"].isoformat()
    csv = shown("results", sweep.run_folder, "--csv")
    pd.testing.assert_series_equal(
        pd.read_csv(io.StringIO(csv))["learning_rate"], frame["learning_rate"].astype(float)
    )


def test_a_reason_is_never_read_as_markup(watched, shown):
    run = watched(trials=1, turns=1)
    study = run.keeper.study
    storage_of(study).set_trial_user_attr(trial_id_of(study.trials[0]), "stop_reason", "[red]no[/red]")
    assert "[red]no[/red]" in shown("results", run.folder)


def test_values_and_types_survive_the_files(watched):
    run = watched(trials=8)
    study = run.sweep.study()
    with pytest.raises(AdapterFilesError):  # nobody trained; the tables come first
        run.sweep.write_results()
    assert {"trials.csv", "trials.parquet", "reports.parquet"} <= {f.name for f in run.folder.iterdir()}
    trials, reports = read_tables(run.folder)
    pd.testing.assert_frame_equal(trials, trials_frame(study))
    pd.testing.assert_frame_equal(reports, reports_frame(study))
    assert trials.dtypes["number"] == "Int64"
    assert trials["eval_loss"].isna().any()


def test_an_empty_study_and_mixed_choices_survive_too(tmp_path: Path):
    import optuna

    study = optuna.create_study()
    write_tables(study, tmp_path)
    pd.testing.assert_frame_equal(read_tables(tmp_path).trials, trials_frame(study))
    for choice, flag in ((8, True), ("auto", False)):
        study.enqueue_trial({"batch": choice, "rslora": flag})
        trial = study.ask()
        trial.suggest_categorical("batch", [8, "auto"])
        trial.suggest_categorical("rslora", [True, False])
        study.tell(trial, 1.0)
    write_tables(study, tmp_path)
    trials = read_tables(tmp_path).trials
    assert trials.dtypes["rslora"] == "boolean"
    assert set(trials["batch"]) == {"8", "auto"}
    pd.testing.assert_frame_equal(trials, trials_frame(study))


def test_load_reads_the_study_and_the_files_where_it_is_gone(watched):
    run = watched(trials=5)
    trials, reports = load(run.folder)
    assert len(trials) == 5
    assert reports.groupby("number")["percent"].max().to_dict()[0] == 100
    file = run.folder / "sweep.yaml"
    file.write_text(re.sub("storage: .*", f"storage: sqlite:///{run.folder}/gone.db", file.read_text()))
    with pytest.raises(RunFolderError, match="no study yet"):
        load(run.folder)
    write_tables(run.sweep.study(), run.folder)
    again = load(run.folder)
    pd.testing.assert_frame_equal(again.trials, trials)
    pd.testing.assert_frame_equal(again.reports, reports)
