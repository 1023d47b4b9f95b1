"""What a report says once the best and the rows have been run again on common seeds."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest

from results.answer.read_answer import read_answer
from results.report import write_report
from results.sweep_result import read_study
from results.text.answer import gap_text, headline, loss_text, sure_text
from results.verdict.verdict import verdict
from tests.results.confirm_studies import ARMS, confirm
from tests.results.report.test_page import read

Make = Callable[..., Any]


@pytest.fixture
def sweep(make_trial: Make, make_study: Make) -> optuna.Study:
    return make_study(
        make_trial(2.10, lr=2e-4, rows=("scenario.general",), label="guideline default"),
        make_trial(1.8642, lr=4e-4, ratio=0.125, scheduler="cosine"),
        make_trial(2.40, lr=1.5e-3, scheduler="cosine"),
    )


def report_text(sweep: optuna.Study, folder: Path, *, seeds: int) -> str:
    replicates = confirm(*ARMS, seeds=seeds) if seeds else None
    return read(write_report(sweep, verdict(sweep, replicates), folder)).text


def test_losses_and_gaps_are_those_of_the_seeds(sweep: optuna.Study, tmp_path: Path) -> None:
    text = report_text(sweep, tmp_path, seeds=5)
    answer = read_answer(read_study(sweep), verdict(sweep, confirm(*ARMS, seeds=5)), run_folder="runs/mine")
    assert answer.best is not None
    assert answer.default.gap is not None
    before_details = text.split("Details")[0]
    assert headline(answer) in text
    assert f"How sure? {sure_text(answer)}" in text
    for shown in (loss_text(answer.best.loss), gap_text(answer.default.gap)):
        value, _, notes = shown.partition(" (")
        assert f"{value} {notes.removesuffix(')')}" in text, shown
        assert "5 seeds" in notes
    assert "1.864" not in before_details.split("Learning curves")[0]  # the single run's lucky loss
    assert "too low" in before_details.split("Against the guideline tables")[1]


def test_rows_and_seeds_stand_in_the_details(sweep: optuna.Study, tmp_path: Path) -> None:
    _, details = report_text(sweep, tmp_path, seeds=5).split("Details", 1)
    assert "scenario.general learning_rate 2e-4 too low" in details
    assert "+0.0500 (+2.4%) on 5 seeds; interval +0.04" in details
    assert "This sweep: 8.03B parameters, 200 steps, batch 8, nf4 weights" in details
    assert "Runs on new seeds (8 configurations)" in details
    assert "5 of 5" in details


def test_without_replicates_every_word_is_undecided(sweep: optuna.Study, tmp_path: Path) -> None:
    text = report_text(sweep, tmp_path, seeds=0)
    assert "How sure? Not yet: one run per configuration." in text
    shown = text.split("Against the guideline tables")[1].split("What they write")[0]
    assert "undecided" in shown
    assert "too low" not in shown.split("Details")[0]


def test_too_few_pairs_make_no_interval(sweep: optuna.Study, tmp_path: Path) -> None:
    assert "How sure? Not yet: 2 seeds, and an interval needs 3." in report_text(sweep, tmp_path, seeds=2)


def test_charts_of_single_runs_say_so_after_a_confirmation(sweep: optuna.Study, tmp_path: Path) -> None:
    note = "Lines are the sweep's single runs"
    assert note in report_text(sweep, tmp_path, seeds=3)
    assert note not in report_text(sweep, tmp_path, seeds=0)


def test_all_trials_show_the_warmup_of_a_default_beside_a_best_without(
    make_trial: Make, make_study: Make, tmp_path: Path
) -> None:
    made = make_study(
        make_trial(2.2, warmup=0.0625, label="guideline default"),
        make_trial(2.0, lr=4e-4, scheduler="constant"),
    )
    table = report_text(made, tmp_path, seeds=0).partition("All trials (2)")[2]
    assert "0.0625" in table
