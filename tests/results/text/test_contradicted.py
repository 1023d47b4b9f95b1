"""An interval that later seeds contradict says so wherever it is shown."""

from __future__ import annotations

from typing import Any

import optuna
import pytest
from optuna.trial import TrialState, create_trial

from results.answer.answer import Answer
from results.answer.read_answer import read_answer
from results.render.json_data import verdict_data
from results.render.rows_page import rows_page
from results.sweep_result import read_study
from results.text.answer import sure_text
from results.verdict.verdict import Verdict, verdict
from search_spaces import DEFAULT_LABEL
from tests.results.confirm_studies import arm
from tests.results.conftest import study, trial

EARLY = [0.1, 0.1000001, 0.0999999, 0.1, 0.1, 0.1]
LATER = [0.35 + 0.01 * (k % 3) for k in range(6)]


def confirmed(differences: list[float]) -> tuple[Verdict, Answer]:
    """The guideline default against the best on as many seeds."""
    replicates: Any = optuna.create_study(study_name=f"confirm-{len(differences)}")
    arms = [
        arm("best", "best"),
        arm(
            "default", "guideline_default", ("scenario.general",), learning_rate=2e-4, embedding_lr_ratio=0.25
        ),
    ]
    replicates.set_user_attr("arms", arms)
    for seed, difference in enumerate(differences):
        for name, loss in (("best", 2.0), ("default", 2.0 + difference)):
            attrs = {"arm": name, "seed": seed, "outcome": "complete"}
            replicates.add_trial(create_trial(state=TrialState.COMPLETE, value=loss, user_attrs=attrs))
    sweep = study(
        trial(2.1, label=DEFAULT_LABEL, lr=2e-4, ratio=0.25),
        trial(2.0, lr=4e-4, ratio=0.125, scheduler="cosine"),
    )
    found = verdict(sweep, replicates)
    return found, read_answer(read_study(sweep), found, run_folder="runs/mine")


@pytest.fixture(scope="module")
def contradicted() -> tuple[Verdict, Answer]:
    return confirmed(EARLY + LATER)


def test_the_answer_says_so_with_the_mean_over_all_seeds(contradicted: tuple[Verdict, Answer]) -> None:
    _, answer = contradicted
    gap = answer.default.gap
    assert gap is not None
    assert gap.high is not None
    assert gap.nats > gap.high
    assert (
        f"Later seeds contradict that interval: the mean over 12 seeds is {gap.percent:.1f}%."
        in sure_text(answer)
    )


def test_the_rows_and_the_arms_of_verdict_rows_say_so(contradicted: tuple[Verdict, Answer]) -> None:
    page = rows_page(contradicted[0])
    arms, rows = page.split("## Guideline rows this sweep tested")
    assert "; later seeds contradict it)" in arms
    assert "margin 0.5%; later seeds contradict it" in rows


def test_verdict_json_has_it_in_the_comparison_and_in_the_answer(
    contradicted: tuple[Verdict, Answer],
) -> None:
    data = verdict_data(*contradicted)
    assert data["replicates"]["comparisons"]["default"]["contradicted"] is True
    assert data["answer"]["default"]["gap"]["contradicted"] is True
    assert "Later seeds contradict" in data["answer"]["text"]["sure"]


def test_nothing_is_said_where_the_looks_agree() -> None:
    found, answer = confirmed([0.1 + 0.001 * (k % 3) for k in range(12)])
    assert answer.default.gap is not None
    assert not answer.default.gap.contradicted
    assert "contradict" not in sure_text(answer) + rows_page(found)
