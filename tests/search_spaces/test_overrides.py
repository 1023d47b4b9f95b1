"""The user's own ranges replace the rows'; all their problems are reported at once with lines."""

from __future__ import annotations

from typing import Any

import pytest
from optuna.trial import FixedTrial

from files_and_text.problems import InputError
from files_and_text.yaml_lines import load_yaml
from search_spaces import MOVED_LABEL, SearchSpace, space_for


def build(overrides: dict[str, Any], **given: Any) -> SearchSpace:
    run: dict[str, Any] = {"model_size": 8.03e9, "max_steps": 800, "train_embeddings": True}
    return space_for(overrides=overrides, **(run | given))


def test_a_range_wins_and_the_tables_stay_named() -> None:
    rate = build({"learning_rate": {"low": "1e-5", "high": 5e-3, "log": True}})["learning_rate"]
    assert (rate.low, rate.high, rate.log, rate.default) == (1e-5, 5e-3, True, 2e-4)
    assert (rate.guideline_low, rate.rows) == (2e-4, ("scenario.general", "size.7-8b"))
    assert "given by the user" in rate.note


def test_one_end_keeps_the_other() -> None:
    rate = build({"learning_rate": {"high": 1e-2}})["learning_rate"]
    assert (rate.low, rate.high, rate.log) == (4e-5, 1e-2, True)


def test_choices_of_any_dimension() -> None:
    space = build(
        {
            "lr_scheduler_type": {"choices": ["warmup_stable_decay", "inverse_sqrt", "cosine_with_min_lr"]},
            "learning_rate": {"choices": [1e-4, 3e-4]},
            "lora_r": {"choices": [4, 256]},
        }
    )
    # No choice ignores warmup, so warmup is unconditional.
    assert space["warmup_ratio"].active_when is None
    assert (space["learning_rate"].kind, space["learning_rate"].default) == ("categorical", 3e-4)
    assert (space["lora_r"].choices, space["lora_r"].default) == ((4, 256), 4)
    assert space["lr_scheduler_type"].default == "warmup_stable_decay"


def test_a_condition_follows_the_given_schedulers() -> None:
    space = build({"lr_scheduler_type": {"choices": ["constant", "constant_with_warmup"]}})
    assert space["warmup_ratio"].active_when == ("lr_scheduler_type", ("constant_with_warmup",))
    assert "warmup_ratio" not in build({"lr_scheduler_type": {"value": "constant"}})


def test_fixed_values() -> None:
    space = build(
        {"learning_rate": {"value": 3e-4}, "lora_r": {"value": "8"}, "lr_scheduler_type": {"value": "linear"}}
    )
    assert (space["learning_rate"].low, space["learning_rate"].high) == (3e-4, 3e-4)
    assert (space["lora_r"].kind, space["lora_r"].default) == ("int", 8)
    assert all(space[name].fixed for name in ("learning_rate", "lora_r", "lr_scheduler_type"))
    # 5e-5 of the rate that will be used.
    assert space["embedding_lr_ratio"].default == 5e-5 / 3e-4


def test_an_override_asks_for_its_dimension() -> None:
    rank = build({"lora_r": {"low": 4, "high": 64, "log": True}})["lora_r"]
    assert (rank.kind, rank.low, rank.high, rank.log, rank.choices, rank.default) == (
        "int",
        4,
        64,
        True,
        None,
        16,
    )
    ratio = build({"embedding_lr_ratio": {"low": 0.1, "high": 1}}, method="full")["embedding_lr_ratio"]
    assert (ratio.low, ratio.high) == (0.1, 1.0)


def test_steps() -> None:
    warmup = build({"warmup_ratio": {"low": 0, "high": 0.2, "step": 0.04}})["warmup_ratio"]
    assert warmup.default == pytest.approx(0.04)
    assert warmup.grid(20) == pytest.approx([0, 0.04, 0.08, 0.12, 0.16, 0.2])
    # A step on a rate leaves the log scale, which Optuna has no steps on.
    assert build({"learning_rate": {"low": 1e-4, "high": 5e-4, "step": 1e-4}})["learning_rate"].log is False


def test_the_tables_own_range_given_back_changes_nothing() -> None:
    space = build({})
    rate = space["learning_rate"]
    same = build({"learning_rate": {"low": rate.low, "high": rate.high, "log": True}})
    assert same == space
    assert same.context["overridden"] == []
    assert build({"learning_rate": {"high": 1e-2}}).context["overridden"] == ["learning_rate"]


@pytest.mark.parametrize("own", [{"high": 1e-3}, {"value": 2e-4}, {"choices": [1e-4, 2e-4]}])
def test_how_far_the_tables_range_goes_is_not_said_of_the_users_own(own: dict[str, Any]) -> None:
    small = {"model_size": 135e6}
    assert "searched up to 10 times" in build({}, **small)["learning_rate"].note
    assert "searched up to 10 times" in build({"learning_rate": {"low": 1e-5}}, **small)["learning_rate"].note
    note = build({"learning_rate": own}, **small)["learning_rate"].note
    assert "searched up to" not in note
    assert note.endswith("range given by the user")


def test_the_space_knows_which_ends_are_the_users() -> None:
    assert "given_ends" not in build({}).context
    space = build({"learning_rate": {"low": 1e-5}, "warmup_ratio": {"low": 0.01, "high": 0.3}})
    assert space.context["given_ends"] == {"learning_rate": ["low"], "warmup_ratio": ["low", "high"]}


def test_values_outside_are_dropped_and_reported() -> None:
    space = build(
        {
            "learning_rate": {"low": 1e-3, "high": 1e-2},
            "embedding_lr_ratio": {"low": 0.5, "high": 1},
            "lr_scheduler_type": {"choices": ["linear", "constant"]},
        }
    )
    first = space.first_trials[0]
    assert first.label == MOVED_LABEL
    assert first.params == {
        "learning_rate": 1e-3,
        "embedding_lr_ratio": 0.5,
        "lr_scheduler_type": "linear",
        "warmup_ratio": 0.05,
    }
    # Rows whose value was moved are not what the trial holds.
    assert set(first.rows) == {"warmup.ratio", "warmup.share_of_steps"}
    dropped = "\n".join(space.context["dropped"])
    assert "learning_rate 2e-4 (scenario.general, size.7-8b) lies outside" in dropped
    assert "the first trial takes 0.001" in dropped
    assert "embedding_lr_ratio 0.25 (embedding.ratio) lies outside" in dropped
    assert "lr_scheduler_type cosine" in dropped
    assert all(space.suggest(FixedTrial(trial.params)) == trial.params for trial in space.first_trials)


def test_moving_what_no_document_says_is_no_loss() -> None:
    space = build({"lora_r": {"value": 64}})
    assert space.first_trials[0].label == "guideline default"
    assert space.context["dropped"] == []


TEXT = """name: x
space:
  learning_rate:
    low: 1e-3
    high: 1e-4
  learing_rate: {value: 1}
  embedding_lr_ratio:
    low: -0.1
    high: .inf
  lr_scheduler_type:
    choices: [cosin, linear, linear]
  warmup_ratio: {low: 0.1, high: 1}
  lora_r: {choices: []}
  lora_alpha: 16
  lora_dropout: {low: 0, high: 0.5, log: true}
  per_device_train_batch_size: {choices: [2, 2.5]}
  weight_decay: {value: 0.1, low: 0, hgh: 1}
"""


def test_all_problems_with_their_lines() -> None:
    data, lines = load_yaml(TEXT)
    with pytest.raises(InputError) as caught:
        build(data["space"], path="sweep.yaml", lines=lines)
    found = str(caught.value).splitlines()
    expected = [
        "sweep.yaml:4: learning_rate needs low < high; got low 0.001 and high 0.0001.",
        "sweep.yaml:6: space has no key 'learing_rate'. Did you mean 'learning_rate'?",
        "sweep.yaml:8: space.embedding_lr_ratio.low must be above 0; got -0.1.",
        "sweep.yaml:9: space.embedding_lr_ratio.high must be a finite number; got inf.",
        "sweep.yaml:11: lr_scheduler_type: 'cosin' is not a scheduler. Did you mean 'cosine'?",
        "sweep.yaml:11: the choices of lr_scheduler_type must be distinct; 'linear' is given twice.",
        "sweep.yaml:12: space.warmup_ratio.high must be below 1; got 1.",
        "sweep.yaml:13: the choices of lora_r must not be empty.",
        "sweep.yaml:14: lora_alpha must be a mapping with low and high, or choices, or value; got 16.",
        "sweep.yaml:15: lora_dropout on a log scale needs low > 0; got 0.",
        "sweep.yaml:16: space.per_device_train_batch_size.choices[1] must be a whole number; got 2.5.",
        "sweep.yaml:17: space.weight_decay has no key 'hgh'. Did you mean 'high'?",
        "sweep.yaml:17: weight_decay takes a range (low, high), or choices, or value, and only one;",
    ]
    for line in expected:
        assert any(item.startswith(line) for item in found), line
    assert len(found) == len(expected)


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        ({"learning_rate": {"low": 1e-2}}, "its high end from the tables"),
        ({"learning_rate": {"low": 1e-3, "high": 1e-3}}, "write value for a fixed one"),
        ({"learning_rate": {"low": 0, "high": 1e-3}}, "must be above 0"),
        ({"learning_rate": {"high": 20}}, "must be at most 1"),
        ({"learning_rate": {}}, "is empty"),
        ({"learning_rate": {"value": True}}, "finite number"),
        ({"learning_rate": {"value": None}}, "got nothing"),
        ({"learning_rate": {"low": 1e-4, "high": 1e-3, "log": "yes"}}, "must be true or false"),
        ({"learning_rate": {"low": 1e-4, "high": 1e-3, "log": True, "step": 1e-4}}, "not both"),
        ({"warmup_ratio": {"log": True}}, "on a log scale needs low > 0"),
        ({"warmup_ratio": {"step": 0}}, "must be above 0"),
        ({"warmup_ratio": {"step": 0.5}}, "must fit between"),
        ({"lora_r": {"low": 8, "high": 16, "step": 1.5}}, "whole number"),
        ({"lora_r": {"low": 0, "high": 8}}, "at least 1"),
        ({"lr_scheduler_type": {"low": 1, "high": 2}}, "chosen by name"),
        ({"lr_scheduler_type": {"choices": "linear"}}, "must be a list"),
        ({"lr_scheduler_type": {"value": "reduce_lr_on_plateau"}}, "is not a scheduler"),
        ({"lr_scheduler_type": {"value": "constant"}, "warmup_ratio": {"value": 0.1}}, "has no effect"),
    ],
)
def test_refused(overrides: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        build(overrides)


def test_a_ratio_for_frozen_embeddings_is_refused() -> None:
    with pytest.raises(InputError, match="frozen"):
        build({"embedding_lr_ratio": {"value": 0.1}}, train_embeddings=False)


def test_a_space_that_is_no_mapping() -> None:
    with pytest.raises(InputError, match="space must be a mapping"):
        build([1])  # type: ignore[arg-type]
