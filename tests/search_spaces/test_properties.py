"""Properties of the space for every model size, length, scenario and request."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.trial import FixedTrial

from files_and_text.yaml_lines import load_yaml
from search_spaces import ON_REQUEST, SearchSpace, load_guidelines, space_for
from search_spaces.space_yaml import commented_space_yaml

GUIDELINES = load_guidelines()
runs = st.fixed_dictionaries(
    {
        "scenario": st.sampled_from(GUIDELINES.scenarios()),
        "model_size": st.floats(min_value=1e6, max_value=2e12),
        "max_steps": st.integers(1, 100_000),
        "train_embeddings": st.booleans(),
        "method": st.sampled_from(["qlora", "full"]),
        "include": st.lists(st.sampled_from(ON_REQUEST), unique=True),
    }
)
factors = st.dictionaries(
    st.sampled_from(["learning_rate", "embedding_lr_ratio", "warmup_ratio", "per_device_train_batch_size"]),
    st.floats(1, 100),
)


@given(runs, factors)
@settings(max_examples=100, deadline=None)
def test_every_space_is_sound(run: dict[str, Any], widen: dict[str, float]) -> None:
    space = space_for(**run, widen=widen, guidelines=GUIDELINES)
    for dimension in space.dimensions:
        assert dimension.contains(dimension.default)
        assert all(row in GUIDELINES for row in dimension.rows)
        assert all(dimension.contains(value) for value in dimension.grid(5))
        if dimension.kind != "categorical":
            assert dimension.low is not None
            assert dimension.high is not None
            assert dimension.low < dimension.high or widen.get(dimension.name) == 1
            if dimension.guideline_low is not None and dimension.guideline_high is not None:
                assert dimension.low <= dimension.guideline_low <= dimension.guideline_high <= dimension.high
    rate = space["learning_rate"]
    assert rate.low is not None
    assert rate.high is not None
    assert rate.low >= 1e-6
    assert rate.high <= 1e-2
    trials = space.first_trials
    assert trials[0].label == "guideline default"
    assert space.context["dropped"] == []
    for trial in trials:
        assert space.suggest(FixedTrial(trial.params)) == trial.params
        assert all(row in GUIDELINES for row in trial.rows)
    assert all(trials.count(trial) == 1 for trial in trials)
    assert len({tuple(sorted(trial.params.items(), key=str)) for trial in trials}) == len(trials)
    assert SearchSpace.from_dict(space.to_dict()) == space


@given(runs)
@settings(max_examples=25, deadline=None)
def test_the_commented_block_gives_the_same_space(run: dict[str, Any]) -> None:
    space = space_for(**run, guidelines=GUIDELINES)
    data, _ = load_yaml(commented_space_yaml(space, GUIDELINES))
    assert space_for(**run, overrides=data["space"], guidelines=GUIDELINES) == space


rates = st.floats(1e-7, 1).filter(lambda value: value > 0)


@given(runs, rates, rates, st.booleans())
@settings(max_examples=50, deadline=None)
def test_a_users_range_always_wins(run: dict[str, Any], one: float, two: float, log: bool) -> None:
    low, high = min(one, two), max(one, two) * 1.5
    if high > 1:
        low, high = low / 2, 1.0
    override = {"learning_rate": {"low": low, "high": high, "log": log}}
    space = space_for(**run, overrides=override, guidelines=GUIDELINES)
    rate = space["learning_rate"]
    assert (rate.low, rate.high, rate.log) == (low, high, log)
    for trial in space.first_trials:
        assert space.suggest(FixedTrial(trial.params)) == trial.params
    moved = not low <= space_for(**run, guidelines=GUIDELINES)["learning_rate"].default <= high
    assert (space.first_trials[0].label != "guideline default") == moved
