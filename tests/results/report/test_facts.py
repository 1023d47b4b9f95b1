"""Importances, and what the header says, from a study."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from results.hyperparameter_importance import read_importance
from results.report.facts import read_facts
from results.report.header import header_lines
from results.verdict.verdict import verdict
from tests.results.report.conftest import START, many_trials, seated

Make = Callable[..., Any]


def test_importances_need_trials_enough(make_trial: Make, make_study: Make) -> None:
    few = read_importance(make_study(*(make_trial(2 + n / 99, lr=1e-5 * (n + 1)) for n in range(39))))
    assert (few.shares, few.reason) == (
        {},
        "To say what mattered among 4 hyperparameters takes 40 finished trials; there are 39.",
    )


def test_a_dimension_that_does_nothing_is_called_idle_only_with_trials_enough(make_study: Make) -> None:
    some, many = (read_importance(make_study(*many_trials(n))) for n in (30, 240))
    assert next(iter(many.shares)) == "learning_rate"
    assert sum(many.shares.values()) == pytest.approx(1)
    assert some.negligible == []
    assert "lr_scheduler_type" in many.negligible


def test_equal_losses_have_no_importances(make_trial: Make, make_study: Make) -> None:
    found = read_importance(make_study(*(make_trial(2.0, lr=1e-5 * (n + 1)) for n in range(40))))
    assert found.reason == "All finished trials have the same loss."


def test_the_header_tells_when_on_what_and_how_fast(make_trial: Make, make_study: Make) -> None:
    trials = [seated(make_trial(2.0 + n), seat=n, begin=0, seconds=40 + 60 * n) for n in range(2)]
    counts = {"num_records": 2000, "num_used": 1800}
    account = {"train": counts, "eval": counts | {"num_used": 48}}
    study = make_study(*trials, context={"data_account": account})
    study.set_user_attr("versions", {"torch": "2.13.0+cu128", "transformers": "5.23.0", "ray": "2.60.0"})
    study.set_user_attr("compute_paths", [{"device": "NVIDIA H200", "path": "general"}])
    assert header_lines(read_facts(study, verdict(study), target=2)) == [
        f"{START.day} January 2026 · 2 of 2 trials (2 complete) in 1 min 40 s on NVIDIA H200 · "
        "80 tokens per second",
        "example/llama-8b (8.03B parameters) · 1,800 records, 48 for evaluation · 200 steps a trial · "
        "torch 2.13.0, transformers 5.23.0",
    ]
    bare = make_study(context={name: None for name in ("model", "max_steps")})
    bare.set_user_attr("versions", {})
    assert header_lines(read_facts(bare, None)) == ["0 trials", ""]
