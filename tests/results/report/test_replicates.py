"""What a report says once the best and the rows have been run again on common seeds."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest

from results.report import write_report
from results.verdict.verdict import verdict
from tests.results.confirm_studies import ARMS, confirm
from tests.results.report.test_page import read

Make = Callable[..., Any]


@pytest.fixture
def sweep(make_trial: Make, make_study: Make) -> optuna.Study:
    return make_study(
        make_trial(2.10, lr=2e-4, rows=("scenario.general",), label="guideline default"),
        make_trial(2.00, lr=4e-4, ratio=0.125, scheduler="cosine"),
        make_trial(2.40, lr=1.5e-3, scheduler="cosine"),
    )


def report_text(sweep: optuna.Study, folder: Path, *, seeds: int) -> str:
    replicates = confirm(*ARMS, seeds=seeds) if seeds else None
    return read(write_report(sweep, verdict(sweep, replicates), folder)).text


def test_words_effects_and_intervals_stand_in_the_answer_and_the_table(
    sweep: optuna.Study, tmp_path: Path
) -> None:
    text = report_text(sweep, tmp_path, seeds=5)
    assert "How sure: run again, the guideline default's loss against the best's is +0.1" in text
    assert "on 5 seeds, interval +0.0" in text
    assert "scenario.general learning_rate 2e-4 too low" in " ".join(text.split())
    assert "+0.0500 (+2.38%) on 5 seeds; interval +0.04" in text
    assert "Conditions of this sweep: model size 8.03B, 200 steps, batch 8, base nf4" in text
    assert "Configs run again on common seeds (" in text
    assert "5 of 5" in text
    assert "one run per config cannot tell a gain from luck" not in text


def test_without_replicates_every_word_is_undecided_and_no_interval_is_shown(
    sweep: optuna.Study, tmp_path: Path
) -> None:
    text = report_text(sweep, tmp_path, seeds=0)
    assert "How sure: not yet." in text
    assert "too low" not in text.split("Where the guidelines held")[2].split("Guideline rows not tested")[0]
    assert "one run per config cannot tell a gain from luck" in text


def test_too_few_pairs_make_no_interval(sweep: optuna.Study, tmp_path: Path) -> None:
    assert "on 2 seeds; too few pairs for an interval." in report_text(sweep, tmp_path, seeds=2)
