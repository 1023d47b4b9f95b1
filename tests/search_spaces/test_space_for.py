"""space_for: ranges and defaults, worked out by hand from the documents."""

from __future__ import annotations

from typing import Any

import pytest

from files_and_text.problems import InputError
from search_spaces import SearchSpace, space_for


def build(**given: Any) -> SearchSpace:
    run: dict[str, Any] = {"model_size": 8.03e9, "max_steps": 800, "train_embeddings": True}
    return space_for(**(run | given))


@pytest.mark.parametrize(
    ("scenario", "size", "steps", "low", "high", "default"),
    [
        ("general", 8e9, 600, 2e-4, 2e-4, 2e-4),
        ("general", 1.24e9, 600, 2e-4, 3e-4, 2e-4),
        ("general", 13e9, 600, 1e-4, 2e-4, 2e-4),
        # 2e-4 for the scenario, at most 1e-4 for the size: the lower wins.
        ("general", 70e9, 600, 5e-5, 2e-4, 1e-4),
        ("instruction", 8e9, 600, 1e-4, 2e-4, 2e-4),
        ("instruction", 70e9, 600, 5e-5, 2e-4, 1e-4),
        ("complex", 8e9, 600, 1e-4, 2e-4, 1e-4),
        ("complex", 1e9, 600, 1e-4, 3e-4, 1e-4),
        ("short", 8e9, 80, 5e-5, 2e-4, 5e-5),
        ("long", 8e9, 3000, 1e-4, 2e-4, 1e-4),
        # The rows about the length of the run join whatever the scenario is.
        ("general", 8e9, 99, 5e-5, 2e-4, 2e-4),
        ("general", 8e9, 100, 2e-4, 2e-4, 2e-4),
        ("general", 8e9, 1000, 2e-4, 2e-4, 2e-4),
        ("general", 8e9, 1001, 1e-4, 2e-4, 2e-4),
    ],
)
def test_learning_rate(
    scenario: str, size: float, steps: int, low: float, high: float, default: float
) -> None:
    rate = build(scenario=scenario, model_size=size, max_steps=steps)["learning_rate"]
    assert (rate.guideline_low, rate.guideline_high, rate.default) == (low, high, default)
    assert rate.log
    # Published sweeps of two small models had their best at the last rate that they tried.
    upwards = 10 if size <= 8e9 else 5
    assert (rate.low, rate.high) == (pytest.approx(low / 5), pytest.approx(high * upwards))
    assert ("the last rate tried" in rate.note) == (upwards == 10)
    assert f"scenario.{scenario}" in rate.rows


def test_small_models_reach_3e_3_and_a_factor_of_the_users_own_holds_on_both_sides() -> None:
    assert build(model_size=1.35e8)["learning_rate"].high == pytest.approx(3e-3)
    own = build(model_size=1.35e8, widen={"learning_rate": 2})["learning_rate"]
    assert (own.low, own.high) == (pytest.approx(1e-4), pytest.approx(6e-4))


def test_the_range_reaches_the_value_called_too_high() -> None:
    assert build()["learning_rate"].contains(1e-3)


def test_full_fine_tuning_has_its_own_rates() -> None:
    space = build(method="full", model_size=7e9, train_embeddings=False)
    rate = space["learning_rate"]
    assert (rate.guideline_low, rate.guideline_high, rate.default) == (1e-5, 5e-5, 1e-5)
    assert (rate.low, rate.high) == (pytest.approx(2e-6), pytest.approx(2.5e-4))
    assert rate.rows == ("method.full", "method.full_7b")
    assert space.context["notes"] == []
    far = build(method="full", model_size=70e9)
    assert "outside" in far["learning_rate"].note
    # No row gives the embeddings of a full fine-tune a rate of their own.
    assert "embedding_lr_ratio" not in far
    assert any("main rate" in note for note in far.context["notes"])


def test_sizes_off_the_table_are_marked() -> None:
    space = build(model_size=4.5e9)
    note = "nearest row 1-3B: 4.5e+09 parameters lie between rows"
    assert space["learning_rate"].note.startswith(note)
    assert space["learning_rate"].rows == ("scenario.general", "size.1-3b")
    assert note in space.context["notes"]
    assert build(model_size=8.03e9).context["notes"] == []
    assert "outside all rows" in build(model_size=5e6)["learning_rate"].note


def test_a_scenario_of_another_length_is_marked() -> None:
    notes = build(scenario="short", max_steps=300).context["notes"]
    assert notes == [
        "the row scenario.short is written for Short Training (<100 steps); this run has 300 steps"
    ]


@pytest.mark.parametrize(
    ("scenario", "default", "low", "high"),
    [
        ("general", 0.25, 0.05, 0.25),  # 5e-5 of 2e-4
        ("complex", 0.5, 0.05, 0.5),  # 5e-5 of 1e-4
    ],
)
def test_embedding_ratio_spans_all_documents(scenario: str, default: float, low: float, high: float) -> None:
    ratio = build(scenario=scenario)["embedding_lr_ratio"]
    assert (ratio.default, ratio.guideline_low, ratio.guideline_high) == (default, low, high)
    assert ratio.log
    assert {"embedding.default", "embedding.times_lower", "embedding.ratio"} <= set(ratio.rows)
    assert ratio.contains(1.0)
    assert ratio.low == pytest.approx(low / 4)


def test_one_rate_for_all_is_inside_even_without_widening() -> None:
    ratio = build(widen={"embedding_lr_ratio": 1})["embedding_lr_ratio"]
    assert (ratio.low, ratio.high) == (0.05, 1.0)


def test_frozen_embeddings_have_no_ratio() -> None:
    assert "embedding_lr_ratio" not in build(train_embeddings=False)


@pytest.mark.parametrize(
    ("steps", "choices", "own"),
    [
        (30, ("linear", "constant", "cosine"), ("linear", "constant")),
        (499, ("linear", "constant", "cosine"), ("linear", "constant")),
        (500, ("cosine", "linear", "constant"), ("cosine",)),
        (2000, ("cosine", "linear", "constant"), ("cosine",)),
        (2001, ("cosine", "linear", "constant"), ("cosine",)),
    ],
)
def test_schedulers_put_the_run_lengths_own_first(
    steps: int, choices: tuple[str, ...], own: tuple[str, ...]
) -> None:
    scheduler = build(max_steps=steps)["lr_scheduler_type"]
    assert (scheduler.choices, scheduler.guideline_choices, scheduler.default) == (choices, own, own[0])


def test_a_least_number_of_steps_says_nothing_of_a_run_that_is_shorter_than_twice_that() -> None:
    short, long = (build(max_steps=steps)["warmup_ratio"] for steps in (8, 40))
    assert "warmup.min_steps" not in short.rows
    assert short.note == (
        "10 steps of warmup are more than half of 8, so warmup.min_steps says nothing of so short a run"
    )
    assert "warmup.min_steps" in long.rows
    assert long.note == "10 steps of warmup are 0.25 of 40"


@pytest.mark.parametrize(
    ("steps", "guideline_low", "guideline_high", "default", "high"),
    [
        (1000, 0.03, 0.1, 0.05, 0.2),
        (200, 0.03, 0.1, 0.05, 0.2),
        (150, 0.03, 0.1, 10 / 150, 0.2),
        (100, 0.03, 0.1, 0.1, 0.2),
        (50, 0.03, 0.2, 0.2, 0.2),
        (30, 0.03, 1 / 3, 1 / 3, 1 / 3),
        (20, 0.03, 0.5, 0.5, 0.5),
        # 10 steps would be more than half of the run.
        (12, 0.03, 0.1, 0.05, 0.2),
        (1, 0.03, 0.1, 0.05, 0.2),
        (2001, 0.03, 0.1, 0.03, 0.2),
    ],
)
def test_warmup(steps: int, guideline_low: float, guideline_high: float, default: float, high: float) -> None:
    warmup = build(max_steps=steps)["warmup_ratio"]
    assert (warmup.guideline_low, warmup.guideline_high) == (guideline_low, pytest.approx(guideline_high))
    assert warmup.default == pytest.approx(default)
    assert (warmup.low, warmup.high) == (0.0, pytest.approx(high, rel=1e-4))
    assert warmup.active_when == (
        "lr_scheduler_type",
        tuple(c for c in build(max_steps=steps)["lr_scheduler_type"].choices or () if c != "constant"),
    )


@pytest.mark.parametrize(
    ("size", "choices", "default", "span"),
    [
        (1e9, (4, 8, 16, 32), 8, (8, 16)),
        (8e9, (2, 4, 8, 16), 4, (4, 8)),
        (13e9, (1, 2, 4, 8), 2, (2, 4)),
        (70e9, (1, 2, 4), 1, (1, 2)),
    ],
)
def test_batch_sizes(size: float, choices: tuple[int, ...], default: int, span: tuple[int, int]) -> None:
    batch = build(model_size=size, include=("per_device_train_batch_size",))["per_device_train_batch_size"]
    assert (batch.choices, batch.default) == (choices, default)
    assert (batch.guideline_low, batch.guideline_high) == span


def test_dimensions_on_request_only() -> None:
    usual = ("learning_rate", "embedding_lr_ratio", "lr_scheduler_type", "warmup_ratio")
    assert build().names == usual
    asked = ("weight_decay", "lora_r", "lora_alpha", "lora_dropout", "per_device_train_batch_size")
    space = build(include=asked)
    assert set(space.names) == {*usual, *asked}
    assert space["weight_decay"].rows == ("embedding.weight_decay",)
    assert space["lora_r"].rows == ()
    assert "silent" in space["lora_r"].note


def test_context_says_what_the_space_is_for() -> None:
    context = build(scenario="complex", widen={"learning_rate": 2}).context
    assert {
        key: context[key] for key in ("scenario", "model_size", "max_steps", "train_embeddings", "method")
    } == {
        "scenario": "complex",
        "model_size": 8.03e9,
        "max_steps": 800,
        "train_embeddings": True,
        "method": "qlora",
    }
    assert context["widen"] == {"learning_rate": 2, "embedding_lr_ratio": 4, "warmup_ratio": 2}


def test_everything_wrong_at_once() -> None:
    with pytest.raises(InputError) as caught:
        build(
            scenario="genral",
            method="qlorra",
            model_size=8,
            max_steps=0,
            include=("lora_rank",),
            widen={"learning_rate": 0.5, "warmup": 2},
            overrides={"learning_rte": {"value": 1}},
        )
    text = str(caught.value)
    for words in (
        "scenario: 'genral' is not known. Did you mean 'general'?",
        "method: 'qlorra' is not known. Did you mean 'qlora'?",
        "model_size is a number of parameters, such as 8.03e9; got 8.",
        "max_steps must be at least 1; got 0.",
        "include: 'lora_rank' is not known. Did you mean 'lora_r'?",
        "widen.learning_rate must be at least 1; got 0.5.",
        "widen has no key 'warmup'. Did you mean 'warmup_ratio'?",
        "space has no key 'learning_rte'. Did you mean 'learning_rate'?",
    ):
        assert words in text
