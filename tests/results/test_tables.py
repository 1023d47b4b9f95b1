"""The study as pandas tables."""

from __future__ import annotations

import csv
import math

import optuna
import pandas as pd
import pytest

from results.tables import TRIALS_CSV, read_tables, reports_frame, trials_frame, write_tables


@pytest.fixture
def mixed(make_trial, make_study):
    return make_study(
        make_trial(2.1, lr=2e-4, rows=("scenario.general", "warmup.ratio"), label="guideline default"),
        make_trial(
            outcome="pruned",
            lr=1e-3,
            reports={20: 2.9, 40: 2.8},
            reason="behind at 40%",
            signs=("loss_spike",),
        ),
        make_trial(outcome="diverged", lr=2e-3, reports={20: math.nan}, signs=("nan_or_inf", "loss_spike")),
        make_trial(outcome="failed", reason="worker died"),
        make_trial(outcome="running", scheduler="constant", reports={20: 2.5}),
    )


def test_one_row_per_trial_with_state_outcome_and_reason(mixed):
    frame = trials_frame(mixed)
    assert frame["number"].tolist() == [0, 1, 2, 3, 4]
    assert frame["state"].tolist() == ["COMPLETE", "PRUNED", "PRUNED", "FAIL", "RUNNING"]
    assert frame["outcome"].tolist()[:4] == ["complete", "pruned", "diverged", "failed"]
    assert pd.isna(frame.loc[4, "outcome"])
    assert frame.loc[1, "stop_reason"] == "behind at 40%"


def test_the_loss_of_a_stopped_trial_is_never_in_the_column_of_full_ones(mixed):
    frame = trials_frame(mixed)
    assert frame["eval_loss"].notna().tolist() == [True, False, False, False, False]
    assert frame.loc[1, "last_eval_loss"] == 2.8
    assert frame.loc[1, "last_percent"] == 40
    assert pd.isna(frame.loc[2, "last_eval_loss"])  # the report was NaN
    assert frame.loc[2, "last_percent"] == 20


def test_optunas_own_value_of_a_pruned_trial_is_no_loss_at_the_full_budget(make_study):
    study = make_study()
    trial = study.ask()
    trial.report(1.5, 40)
    study.tell(trial, state=optuna.trial.TrialState.PRUNED)
    assert study.trials[0].value == 1.5  # set by Optuna
    frame = trials_frame(study)
    assert pd.isna(frame.loc[0, "eval_loss"])
    assert frame.loc[0, "last_eval_loss"] == 1.5


def test_a_complete_trial_that_did_not_train_to_the_end_has_no_loss_at_the_full_budget(
    make_trial, make_study
):
    frame = trials_frame(make_study(make_trial(1.0, attrs={"num_steps": 10}), make_trial(2.0)))
    assert frame["eval_loss"].notna().tolist() == [False, True]


def test_parameters_derived_values_and_signs_are_columns(mixed):
    frame = trials_frame(mixed)
    assert frame.loc[0, "learning_rate"] == 2e-4
    assert frame.loc[0, "embedding_learning_rate"] == pytest.approx(2e-4 * 0.25)
    assert frame.loc[0, "warmup_steps"] == 10
    assert frame.loc[0, "rows"] == "scenario.general warmup.ratio"
    assert frame.loc[2, "signs"] == "nan_or_inf@7 loss_spike@7"
    assert pd.isna(frame.loc[4, "warmup_ratio"])  # constant has none
    assert frame.loc[4, "lr_scheduler_type"] == "constant"
    assert frame.dtypes["warmup_steps"] == "Int64"
    assert frame.dtypes["learning_rate"] == "Float64"


def test_reports_one_row_each_with_whole_percents(mixed):
    frame = reports_frame(mixed)
    assert list(frame.columns) == ["number", "percent", "eval_loss"]
    assert frame[frame["number"] == 1][["percent", "eval_loss"]].values.tolist() == [[20, 2.9], [40, 2.8]]
    assert frame.dtypes["percent"] == "Int64"
    assert len(frame) == 1 + 2 + 1 + 0 + 1


def test_an_empty_study_has_the_same_columns(mixed, make_study):
    empty = trials_frame(make_study())
    assert empty.empty
    assert set(empty.columns) == set(trials_frame(mixed).columns) - set(mixed.trials[0].params)
    assert reports_frame(make_study()).empty


def test_csv_reads_back_to_the_same_numbers(make_trial, make_study, tmp_path):
    study = make_study(make_trial(2.1234567890123456, lr=1.2345678901234567e-4, reason='he said "no", twice'))
    write_tables(study, tmp_path / "run")
    with (tmp_path / "run" / TRIALS_CSV).open(newline="", encoding="utf-8") as file:
        (read,) = csv.DictReader(file)
    assert float(read["eval_loss"]) == 2.1234567890123456
    assert float(read["learning_rate"]) == 1.2345678901234567e-4
    assert read["stop_reason"] == 'he said "no", twice'
    files = sorted(file.name for file in (tmp_path / "run").iterdir())
    assert files == ["reports.parquet", "trials.csv", "trials.parquet"]
    pd.testing.assert_frame_equal(read_tables(tmp_path / "run").trials, trials_frame(study))


def test_a_study_in_sqlite_reads_the_same(make_trial, make_study, tmp_path):
    trials = [make_trial(2.0, lr=8e-4), make_trial(outcome="pruned", reports={40: 2.5})]
    stored = make_study(*trials, storage=f"sqlite:///{tmp_path / 'study.db'}", name="kept")
    loaded = optuna.load_study(study_name="kept", storage=f"sqlite:///{tmp_path / 'study.db'}")
    pd.testing.assert_frame_equal(trials_frame(stored), trials_frame(loaded))
    in_memory = trials_frame(make_study(*trials))
    pd.testing.assert_frame_equal(trials_frame(loaded), in_memory)


def test_asked_and_told_trials_read_like_created_ones(make_study):
    study = make_study()
    trial = study.ask()
    rate = trial.suggest_float("learning_rate", 1e-5, 2e-3, log=True)
    trial.report(2.5, 50)
    trial.set_user_attr("outcome", "complete")
    study.tell(trial, 2.25)
    study.ask()
    frame = trials_frame(study)
    assert frame["state"].tolist() == ["COMPLETE", "RUNNING"]
    assert frame.loc[0, "learning_rate"] == rate
    assert frame.loc[0, "eval_loss"] == 2.25
