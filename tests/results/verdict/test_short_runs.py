"""Runs too short for the tables' least warmup: it is not credited, not judged, and no reason to widen."""

from __future__ import annotations

from typing import Any

import pytest

from results.sweep_result import SweepResult, read_study
from results.text.rows import reason_not_tested
from results.verdict.verdict import verdict
from search_spaces import Dimension, SearchSpace, load_guidelines, space_for
from tests.results.conftest import study, trial


def space_of(max_steps: int, scenario: str = "short") -> SearchSpace:
    return space_for(
        scenario=scenario, model_size=1.35e8, max_steps=max_steps, train_embeddings=True, method="qlora"
    )


@pytest.mark.parametrize("max_steps", range(1, 31))
def test_texts_and_rows_of_a_short_run_say_what_is_true(max_steps: int) -> None:
    space = space_of(max_steps)
    warmup, first = space["warmup_ratio"], space.first_trials[0]
    fits = max_steps / 2 >= 10
    assert ("warmup.min_steps" in warmup.rows) == fits
    assert "10 steps" not in warmup.note or ("more than half" in warmup.note) == (not fits)
    credited = "warmup.min_steps" in first.rows
    assert credited == (fits and first.params.get("warmup_ratio") == pytest.approx(10 / max_steps))
    assert warmup.high is not None
    assert warmup.high <= 0.5
    row = next(r for r in verdict(tried(max_steps)).rows if r.row.id == "warmup.min_steps")
    assert (row.measurement.not_tested == "longer_than_run") == (not fits)
    if not fits:
        assert (row.word, row.band, row.edge) == ("not_tested", None, "")
        assert reason_not_tested(row) == "10 steps of warmup are more than half of so short a run"


def tried(max_steps: int) -> SweepResult:
    """Two finished trials with half the run as warmup, and none."""
    context: dict[str, Any] = {"max_steps": max_steps}
    trials = []
    for loss, ratio in ((2.0, 0.5), (2.1, 0.0)):
        config = {"max_steps": max_steps, "warmup_steps": round(ratio * max_steps)}
        made = trial(loss, warmup=0.0)
        made.params["warmup_ratio"] = ratio
        made.user_attrs["config"] |= config
        made.user_attrs["num_steps"] = max_steps
        made.distributions["warmup_ratio"].high = 0.5  # type: ignore[attr-defined]
        trials.append(made)
    wide = SearchSpace(dimensions=space_of(max_steps).dimensions)
    rows = [load_guidelines()["warmup.min_steps"].to_dict()]
    return read_study(study(*trials, context=context, space=wide, guidelines=rows))


def test_a_warmup_of_half_the_run_is_not_to_be_widened() -> None:
    half = Dimension(name="warmup_ratio", kind="float", low=0.0, high=0.5, default=0.05)
    made = study(trial(2.0, warmup=0.2), trial(2.1, warmup=0.1), space=SearchSpace(dimensions=(half,)))
    assert verdict(made).edges == []
    less = Dimension(name="warmup_ratio", kind="float", low=0.0, high=0.2, default=0.05)
    assert len(verdict(study(trial(2.0, warmup=0.2), space=SearchSpace(dimensions=(less,)))).edges) == 1


@pytest.mark.parametrize("max_steps", [8, 30, 99])
def test_a_low_main_rate_does_not_make_the_default_one_rate_for_all(max_steps: int) -> None:
    """5e-5 for both would be a ratio of 1, which boundary.same_rate calls too high."""
    ratio = space_of(max_steps)["embedding_lr_ratio"]
    first = space_of(max_steps).first_trials[0]
    assert (first.params["learning_rate"], first.params["embedding_lr_ratio"]) == (5e-5, 0.25)
    assert "embedding.ratio" in first.rows
    assert "embedding.default" not in first.rows
    assert ratio.note == "5e-5 would be 1 of the main rate: boundary.same_rate"
    assert space_of(500, "general")["embedding_lr_ratio"].default == pytest.approx(0.25)
    assert space_of(500, "general")["embedding_lr_ratio"].note == ""
