"""A best with the highest mean rate of all that were tried is no end of the search."""

from __future__ import annotations

from typing import Any

import pytest

from results.answer.answer import Answer
from results.text.answer import answer_lines, headline, sure_text
from results.verdict.verdict import verdict
from search_spaces import DEFAULT_LABEL
from tests.results.confirm_studies import ARMS, arm, confirm
from tests.results.conftest import answer_of, study, trial


def sweep(*others: Any) -> Any:
    """The best, 4.8e-4 with a constant rate, beside a default of 2e-4 and a higher peak with a lower mean."""
    return study(
        trial(3.59, lr=2e-4, label=DEFAULT_LABEL),
        trial(3.351, lr=4.8e-4, scheduler="constant"),
        trial(3.42, lr=6.9e-4, scheduler="cosine", warmup=0.1),
        *others,
    )


def test_a_higher_peak_with_a_lower_mean_is_not_a_higher_rate() -> None:
    found = answer_of(sweep())
    assert (found.untried, found.mean_rate) == ("higher", 4.8e-4)
    text = (
        "Try a higher learning_rate: nothing tried has a higher mean rate over the run than the best, 4.8e-4."
    )
    assert text in sure_text(found)
    assert "Try a higher learning_rate" in "\n".join(answer_lines(found))
    assert "rate_untried" in [limitation.code for limitation in verdict(sweep()).limitations]


@pytest.mark.parametrize("outcome", ["complete", "pruned", "diverged"])
def test_a_higher_mean_that_was_tried_closes_it(outcome: str) -> None:
    loss = 3.5 if outcome == "complete" else None
    found = answer_of(sweep(trial(loss, lr=1e-3, scheduler="constant", outcome=outcome)))
    assert found.untried == ""
    assert "Try" not in sure_text(found)


@pytest.mark.parametrize("outcome", ["out_of_memory", "failed"])
def test_a_trial_that_says_nothing_of_its_values_does_not(outcome: str) -> None:
    assert answer_of(sweep(trial(lr=1e-3, scheduler="constant", outcome=outcome))).untried == "higher"


def test_the_lowest_mean_is_said_too_and_a_near_one_is_no_other() -> None:
    made = study(trial(2.0, lr=1e-4), trial(2.05, lr=0.95e-4), trial(2.2, lr=4e-4))
    assert answer_of(made).untried == "lower"
    assert "Try a lower learning_rate: nothing tried has a lower mean rate" in sure_text(answer_of(made))


def test_a_confirmed_yes_says_it_and_an_arm_above_the_best_ends_it() -> None:
    made = study(
        trial(2.2, lr=2e-4, ratio=0.25, label=DEFAULT_LABEL),
        trial(2.0, lr=4e-4, ratio=0.125, scheduler="cosine"),
    )
    confirmed = answer_of(made, confirm(*ARMS[:2]))
    assert confirmed.sure == "default_costs"
    assert sure_text(confirmed).startswith("Yes: better than the guideline default, which costs")
    assert "Try a higher learning_rate" in sure_text(confirmed)
    higher = (arm("higher", "row", learning_rate=1e-3), 2.4)
    assert answer_of(made, confirm(*ARMS[:2], higher)).untried == ""


def test_nothing_is_said_of_a_rate_that_was_not_searched_or_while_trials_run() -> None:
    same = study(trial(2.0, lr=2e-4, ratio=0.1), trial(2.1, lr=2e-4, ratio=0.2))
    assert answer_of(same).untried == ""
    running = answer_of(sweep(trial(lr=1e-3, scheduler="constant", outcome="running")))
    assert (running.run.is_unfinished, running.untried) == (True, "")
    assert isinstance(running, Answer)
    assert headline(running).startswith("Use ")
