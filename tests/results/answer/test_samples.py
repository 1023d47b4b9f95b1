"""Texts of the base, the guideline default and the best, beside each other."""

from __future__ import annotations

import optuna

from results.answer.answer import Sample
from results.answer.read_answer import read_answer
from results.sweep_result import read_study
from results.verdict.verdict import verdict
from search_spaces import DEFAULT_LABEL
from tests.results.conftest import study, trial

KEPT = {"prompts": ["1 + 1 =", "2 + 2 ="], "answers": [" 2", " 4"], "generations": [" 1", " 1"]}


def samples(of: optuna.Study, kept: dict[str, list[str]] | None = None) -> list[Sample]:
    if kept is not None:
        of.set_user_attr("base_samples", kept)
    return list(read_answer(read_study(of), verdict(of), run_folder="runs/mine").samples)


def test_the_same_prompts_by_base_default_and_best() -> None:
    of = study(
        trial(2.2, label=DEFAULT_LABEL, attrs={"generations": [" 3", " 3"]}),
        trial(2.0, attrs={"generations": [" 2", " 4"]}),
        trial(2.1, attrs={"generations": [" 9", " 9"]}),
    )
    assert samples(of, KEPT) == [
        Sample(prompt="1 + 1 =", reference=" 2", base=" 1", default=" 3", best=" 2"),
        Sample(prompt="2 + 2 =", reference=" 4", base=" 1", default=" 3", best=" 4"),
    ]


def test_a_default_that_is_best_or_wrote_nothing_has_no_text_of_its_own() -> None:
    best_default = study(trial(2.0, label=DEFAULT_LABEL, attrs={"generations": [" 2", " 4"]}))
    assert [(s.default, s.best) for s in samples(best_default, KEPT)] == [(None, " 2"), (None, " 4")]
    pruned = study(trial(outcome="pruned", reports={20: 2.5}, label=DEFAULT_LABEL))
    assert [(s.default, s.best) for s in samples(pruned, KEPT)] == [(None, None)] * 2


def test_a_study_of_an_earlier_version_has_none() -> None:
    assert samples(study(trial(2.0, attrs={"generations": [" 2", " 4"]}))) == []
