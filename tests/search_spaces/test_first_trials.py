"""The rows' own values as the first trials."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from search_spaces import FirstTrial, GuidelineRow, SearchSpace, When, load_guidelines, space_for

GUIDELINES = load_guidelines()


def build(**given: Any) -> SearchSpace:
    run: dict[str, Any] = {"model_size": 8.03e9, "max_steps": 800, "train_embeddings": True}
    return space_for(**(run | given))


@pytest.mark.parametrize(
    ("given", "params"),
    [
        (
            {},
            {
                "learning_rate": 2e-4,
                "embedding_lr_ratio": 0.25,
                "lr_scheduler_type": "cosine",
                "warmup_ratio": 0.05,
            },
        ),
        (
            {"scenario": "complex", "model_size": 70e9, "max_steps": 3000, "train_embeddings": False},
            {"learning_rate": 1e-4, "lr_scheduler_type": "cosine", "warmup_ratio": 0.03},
        ),
        (
            {"model_size": 5e6, "max_steps": 40},
            {
                "learning_rate": 2e-4,
                "embedding_lr_ratio": 0.25,
                "lr_scheduler_type": "linear",
                "warmup_ratio": 0.25,
            },
        ),
    ],
)
def test_the_default_is_what_the_tables_say_all_at_once(
    given: dict[str, Any], params: dict[str, Any]
) -> None:
    first = build(**given).first_trials[0]
    assert first.params == params
    assert first.label == "guideline default"


def test_the_default_names_the_rows_whose_values_it_holds() -> None:
    assert set(build().first_trials[0].rows) == {
        "scenario.general",
        "size.7-8b",
        "embedding.default",
        "embedding.recommended",
        "embedding.ratio",
        "scheduler.medium",
        "scheduler.lora_start",
        "scheduler.llama_8b",
        "warmup.ratio",
        "warmup.share_of_steps",
    }


def test_other_values_differ_in_one_dimension_and_name_their_row() -> None:
    space = build(scenario="instruction", max_steps=300, include=("per_device_train_batch_size",))
    first, *others = space.first_trials
    differing = []
    for trial in others:
        changed = {name for name in first.params if trial.params.get(name) != first.params[name]}
        if "learning_rate" in changed:
            # The documents give the embeddings a rate, which stays where it is.
            rate = trial.params["learning_rate"] * trial.params["embedding_lr_ratio"]  # type: ignore[operator]
            assert rate == pytest.approx(5e-5)
            changed.discard("embedding_lr_ratio")
        if trial.params["lr_scheduler_type"] == "constant":
            changed.discard("warmup_ratio")
        assert len(changed) == 1
        name = changed.pop()
        differing.append((name, trial.params[name]))
    assert sorted(differing, key=str) == sorted(
        [
            ("learning_rate", 1e-4),
            ("embedding_lr_ratio", 0.1),
            ("embedding_lr_ratio", 0.05),
            ("lr_scheduler_type", "constant"),
            ("lr_scheduler_type", "cosine"),
            ("warmup_ratio", 0.1),
            ("warmup_ratio", 0.03),
            ("per_device_train_batch_size", 8),
        ],
        key=str,
    )
    labels = {trial.label for trial in others}
    assert "embedding_lr_ratio 0.1 of embedding.times_lower" in labels
    assert all(any(row in trial.label for row in trial.rows) for trial in others)


def separated_rows(space: SearchSpace, trial: FirstTrial) -> set[str]:
    """Rows about the dimension in which a trial differs that only it or only the default agrees with."""
    default = space.first_trials[0]
    name = trial.label.split()[0]
    found = set()
    for row_id in space[name].rows:
        row = GUIDELINES[row_id]
        if row.choices and row.when == When():  # an example, not advice
            continue
        both = [_agrees(row, run.params, 300) for run in (default, trial)]
        if both[0] != both[1]:
            found.add(row_id)
    return found


def _agrees(row: GuidelineRow, params: Mapping[str, Any], steps: int) -> bool:
    if row.choices:
        return params["lr_scheduler_type"] in row.choices
    rate, ratio = params["learning_rate"], params["embedding_lr_ratio"]
    values = {
        "learning_rate": rate,
        "embedding_lr_ratio": ratio,
        "embedding_learning_rate": rate * ratio,
        "warmup_ratio": params.get("warmup_ratio"),
        "per_device_train_batch_size": params.get("per_device_train_batch_size"),
    }
    if row.parameter == "warmup_steps":
        return bool(params["warmup_ratio"] * steps >= (row.low or 0.0))
    value = values[str(row.parameter)]
    return bool(
        row.low is not None
        and row.high is not None
        and row.low <= value * (1 + 1e-9)
        and value <= row.high * (1 + 1e-9)
    )


def test_each_trial_separates_the_most_rows_that_none_before_it_did() -> None:
    """So a sweep that has room for few of them tests the most rows."""
    space = build(scenario="instruction", max_steps=300, include=("per_device_train_batch_size",))
    default, *others = space.first_trials
    told: set[str] = set()
    for index, trial in enumerate(others):
        new = [len(separated_rows(space, each) - told) for each in others[index:]]
        assert new[0] == max(new), trial.label
        told |= separated_rows(space, trial)
    assert default.label == "guideline default"
    assert others[0].label == "embedding_lr_ratio 0.1 of embedding.times_lower"  # the four rows about it
    dimensions = [trial.label.split()[0] for trial in others]
    assert len(set(dimensions[:3])) == 3


def test_of_equals_rates_come_before_names_and_names_before_the_rest() -> None:
    space = build(
        model_size=1.2e9,
        max_steps=300,
        train_embeddings=False,
        overrides={"warmup_ratio": {"low": 0.05, "high": 0.1}},
    )
    labels = [trial.label.split()[0] for trial in space.first_trials[1:]]
    assert labels.index("learning_rate") < labels.index("warmup_ratio")


def test_a_run_of_few_steps_tries_the_short_trainings_rate() -> None:
    space = build(max_steps=60)
    trial = next(trial for trial in space.first_trials if trial.params["learning_rate"] == 5e-5)
    assert "scenario.short" in trial.rows
    assert "scenario.general" not in trial.rows
    assert trial.params["embedding_lr_ratio"] == 1.0


def test_warmup_is_absent_where_the_scheduler_ignores_it() -> None:
    trials = build(max_steps=60).first_trials
    constant = [trial for trial in trials if trial.params["lr_scheduler_type"] == "constant"]
    assert len(constant) == 1
    assert "warmup_ratio" not in constant[0].params
    assert not any(row.startswith("warmup.") for row in constant[0].rows)


def test_ratios_that_the_embedding_rate_cannot_keep_stay_at_the_default() -> None:
    space = build(scenario="instruction", overrides={"embedding_lr_ratio": {"low": 0.1, "high": 0.3}})
    trial = next(trial for trial in space.first_trials if trial.params["learning_rate"] == 1e-4)
    assert trial.params["embedding_lr_ratio"] == 0.25
    assert "embedding.default" not in trial.rows
