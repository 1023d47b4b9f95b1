"""Schedules that contradict the space are refused; accepted ones never exceed their peak."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from files_and_text.choices import SCHEDULERS
from lora_runner.optim.schedules import schedule_factor
from search_spaces import SearchSpace, space_for
from sweeps.config import load_sweep, problem_at
from sweeps.config.sections.training import TrainingSection
from sweeps.errors import ConfigError
from sweeps.plan.build_blueprint import build_blueprint
from sweeps.plan.schedule_rules import schedule_findings
from sweeps.plan.trial_config import trial_config

CONSTANTS = {"max_steps": 100, "per_device_train_batch_size": 8}


def space(**overrides: dict[str, Any]) -> SearchSpace:
    return space_for(
        scenario="general", model_size=8e9, max_steps=100, train_embeddings=True, overrides=overrides
    )


def findings(overrides: dict[str, Any], **kwargs: Any) -> list[tuple[Any, str]]:
    return list(schedule_findings(space(**overrides), CONSTANTS, kwargs))


MIN_LR = {"lr_scheduler_type": {"choices": ["linear", "cosine_with_min_lr"]}}
DECAY = {"lr_scheduler_type": {"value": "warmup_stable_decay"}, "warmup_ratio": {"low": 0.0, "high": 0.2}}


@pytest.mark.parametrize(
    ("rates", "min_lr", "is_refused"),
    [
        ({"low": 1e-5, "high": 1e-3}, 0.99e-5, False),
        ({"low": 1e-5, "high": 1e-3}, 1e-5, True),  # the lowest rate would not decay at all
        ({"low": 1e-5, "high": 1e-3}, 1e-4, True),
        ({"choices": [1e-3, 1e-4]}, 2e-4, True),
        ({"choices": [1e-3, 1e-4]}, 0.5e-4, False),
        ({"value": 1e-4}, 1e-4, True),
        ({"value": 1e-4}, 0.0, False),
    ],
)
def test_a_minimum_lies_below_every_rate_that_may_be_drawn(
    rates: dict[str, Any], min_lr: float, is_refused: bool
) -> None:
    found = findings(MIN_LR | {"learning_rate": rates}, cosine_with_min_lr={"min_lr": min_lr})
    assert [key for key, _ in found] == [
        ("training", "lr_scheduler_kwargs", "cosine_with_min_lr", "min_lr")
    ] * is_refused
    assert all(f"got {min_lr:g}" in said and "space.learning_rate begins at" in said for _, said in found)


def test_what_no_trial_can_draw_is_not_looked_at() -> None:
    assert findings({"lr_scheduler_type": {"value": "linear"}}, cosine_with_min_lr={"min_lr": 1.0}) == []
    assert findings(MIN_LR, cosine_with_min_lr={"min_lr_rate": 0.5}) == []


@pytest.mark.parametrize(
    ("more", "decay", "expected"),
    [
        ({}, 80, None),
        ({}, 81, "got 81, and a trial has 100 steps, 20 of them warmup (space.warmup_ratio up to 0.2)"),
        # 100 steps of 8 examples are 50 of 16 and 25 of 32: the shortest is named.
        ({"per_device_train_batch_size": {"choices": [4, 16]}}, 40, None),
        ({"per_device_train_batch_size": {"choices": [32, 4, 16]}}, 40, "size 32 has 25 steps, 5 of them"),
        ({"per_device_train_batch_size": {"low": 4, "high": 20}}, 40, "size 20 has 40 steps, 8 of them"),
        ({"warmup_ratio": {"value": 0.0}}, 100, None),
        ({"warmup_ratio": {"value": 0.0}}, 101, "0 of them warmup"),
    ],
)
def test_a_decay_fits_beside_the_warmup_into_the_shortest_trial(
    more: dict[str, Any], decay: int, expected: str | None
) -> None:
    found = findings(DECAY | more, warmup_stable_decay={"num_decay_steps": decay})
    if expected is None:
        assert found == []
    else:
        ((key, said),) = found
        assert key == ("training", "lr_scheduler_kwargs", "warmup_stable_decay", "num_decay_steps")
        assert expected in said


def test_a_decay_that_nobody_asked_for_is_not_what_has_to_change() -> None:
    (key, said), *more = findings(DECAY | {"warmup_ratio": {"low": 0.0, "high": 0.95}})
    assert (key, more) == (("space", "warmup_ratio"), [])
    assert "got 10 for a trial has 100 steps, 95 of them warmup" in said


# --- every schedule that is accepted --------------------------------------------------------------

steps = st.integers(1, 60)
shares = st.sampled_from([0.0, 0.1, 0.999, 1.0])
shapes = st.sampled_from(["linear", "cosine", "1-sqrt"])
waves = st.sampled_from([0.01, 0.49, 0.5, 1.0, 1.5])
CONTRADICTED = ("cosine_with_min_lr", "warmup_stable_decay")
kwargs_of: dict[str, st.SearchStrategy[dict[str, Any]]] = {
    "cosine": st.fixed_dictionaries({}, optional={"num_cycles": waves}),
    "cosine_with_min_lr": st.one_of(
        st.fixed_dictionaries({"min_lr": st.sampled_from([0.0, 0.99e-5, 1e-5, 1e-4])}),
        st.fixed_dictionaries({"min_lr_rate": shares}, optional={"num_cycles": waves}),
    ),
    "warmup_stable_decay": st.fixed_dictionaries(
        {"num_decay_steps": steps},
        optional={"min_lr_ratio": shares, "warmup_type": shapes, "decay_type": shapes, "num_cycles": waves},
    ),
    "inverse_sqrt": st.fixed_dictionaries({}, optional={"timescale": st.integers(1, 200)}),
}


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_accepted_schedules_stay_within_the_peak_fall_after_warmup_and_end_where_they_say(data: Any) -> None:
    scheduler = data.draw(st.one_of(st.sampled_from(SCHEDULERS), st.sampled_from(CONTRADICTED)))
    kwargs = data.draw(kwargs_of.get(scheduler, st.just({})))
    budget = data.draw(steps)
    try:
        section = TrainingSection.model_validate(
            {"max_steps": budget, "lr_scheduler_kwargs": {scheduler: kwargs} if kwargs else {}}
        )
    except ValidationError:
        return
    warmup = data.draw(
        st.sampled_from([{"value": 0.0}, {"low": 0.0, "high": 0.06}, {"low": 0.1, "high": 0.9}])
    )
    rates = data.draw(st.sampled_from([{"low": 1e-5, "high": 1e-3}, {"choices": [1e-2, 2e-4]}]))
    sizes = data.draw(st.sampled_from([{"value": 8}, {"choices": [2, 8, 32]}, {"low": 3, "high": 17}]))
    overrides = {"lr_scheduler_type": {"value": scheduler}, "learning_rate": rates}
    overrides["per_device_train_batch_size"] = sizes
    if scheduler != "constant":
        overrides["warmup_ratio"] = warmup
    drawn = space(**overrides)
    constants = CONSTANTS | {"max_steps": budget}
    found = list(schedule_findings(drawn, constants, section.lr_scheduler_kwargs))
    grids = [dimension.grid(17) for dimension in drawn.dimensions]
    broken = []
    for _ in range(6):
        params = {
            d.name: data.draw(st.sampled_from([grid[0], grid[-1], *grid]))
            for d, grid in zip(drawn.dimensions, grids, strict=True)
        }
        config = trial_config(params, constants, section.lr_scheduler_kwargs)
        # One step further than the last update: there a schedule is where it says that it ends.
        factor = schedule_factor(config)
        factors = [factor(step) for step in range(config.max_steps + 1)]
        after = factors[config.warmup_steps :] if scheduler != "constant" else factors
        only_falls = kwargs.get("num_cycles", 0.5) <= 0.5
        ends = {
            "linear": 0.0,
            "cosine": 0.0,
            "cosine_with_min_lr": kwargs.get(
                "min_lr_rate", kwargs["min_lr"] / config.learning_rate if "min_lr" in kwargs else 0.1
            ),
            "warmup_stable_decay": kwargs.get("min_lr_ratio", 0.0),
        }
        ends_low = kwargs.get("num_cycles", 0.5) % 1 == 0.5 and config.warmup_steps < config.max_steps
        broken.append(
            not all(0 <= value <= 1 + 1e-12 for value in factors)
            or (only_falls and any(b > a + 1e-12 for a, b in itertools.pairwise(after)))
            or (scheduler in ends and ends_low and abs(after[-1] - ends[scheduler]) > 1e-9)
        )
        if scheduler == "cosine_with_min_lr":
            broken[-1] |= ends_low and after[-1] >= 1
        if scheduler == "warmup_stable_decay":
            told = config.lr_scheduler_kwargs["num_decay_steps"] + config.warmup_steps
            broken[-1] |= told > config.max_steps
    assert found or not any(broken), (kwargs, config)


# --- at plan ----------------------------------------------------------------------------------------


def test_plan_names_the_keys_line_and_both_values(tmp_path: Path, tiny_model: Callable[..., Path]) -> None:
    records = [{"prompt": f"w{i}:", "completion": f"word{i}"} for i in range(20)]
    (tmp_path / "data.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    file = tmp_path / "s.yaml"
    file.write_text(f"""\
name: s
model: {tiny_model("llama")}
data: {{train: data.jsonl, max_length: 32}}
space:
  lr_scheduler_type: {{choices: [cosine_with_min_lr, warmup_stable_decay]}}
  learning_rate: {{low: 1.0e-5, high: 1.0e-3}}
training:
  num_train_epochs: 2
  per_device_train_batch_size: 4
  lr_scheduler_kwargs:
    cosine_with_min_lr: {{min_lr: 1.0e-4}}
    warmup_stable_decay:
      num_decay_steps: 10
""")
    with pytest.raises(ConfigError) as refused:
        build_blueprint(load_sweep(file, environ={}), lambda key, message: problem_at(file, key, message))
    minimum, decay = refused.value.problems
    assert (minimum.line, decay.line) == (11, 13)
    assert "min_lr must be below" in minimum.message
    assert "got 0.0001, and space.learning_rate begins at 1e-05" in minimum.message
    assert "got 10, and a trial has 10 steps" in decay.message
