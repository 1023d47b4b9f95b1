"""The text of `sweeps plan`."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from lora_runner.data import DataNotice, RenderingCounts, StopToken
from lora_runner.metric.scores import MetricSpec
from search_spaces import space_for
from sweeps.plan.blueprint import Blueprint
from sweeps.plan.plan_text import plan_view
from sweeps.plan.specs import StudySpec
from sweeps.plan.time_estimate import time_estimate

FLOPS = 1e12


class Training:
    """The counts of a training set."""

    num_tokens = 250_000
    rendering = RenderingCounts()

    def __len__(self) -> int:
        return 1000


def blueprint(study_spec: StudySpec, **changed: Any) -> Any:
    """The parts of a blueprint that the text uses, for a model that does not exist."""
    study_spec = StudySpec(
        **{
            **vars(study_spec),
            "context": {**study_spec.context, "compute_dtype": "bfloat16"},
            "constants": {**study_spec.constants, "gradient_accumulation_steps": 2},
            **changed,
        }
    )
    return SimpleNamespace(
        study_spec=study_spec,
        worker_spec=SimpleNamespace(seats=12),
        data=SimpleNamespace(notices=(), train=Training(), eval=SimpleNamespace(num_target_tokens=4096)),
        config=SimpleNamespace(
            model=SimpleNamespace(name="example/a model [8B]"),
            search=SimpleNamespace(sampler="tpe", pruner="successive_halving", seed=3),
        ),
        memory_gib=61.234,
        memory_available_gib=79.1,
        memory_reason="12 seats: 13 would take 68.3 GiB",
        compute_path=["general on this machine, whose device is cpu"],
        base_gib=5.6,
        base_kind="in NF4",
        base_unquantized="2.1 GiB of it stay in bfloat16: embeddings and output layer 2.1",
    )


def shown(plan: Blueprint, width: int = 100) -> list[str]:
    console = Console(file=io.StringIO(), width=width)
    with console.capture() as capture:
        console.print(plan_view(plan, FLOPS))
    return [line.rstrip() for line in capture.get().splitlines()]


@pytest.fixture
def plan(study_spec: Callable[..., StudySpec], tmp_path: Path) -> Any:
    return blueprint(study_spec(tmp_path, trials=16))


def test_the_plan_states_what_would_run(plan: Blueprint) -> None:
    text = "\n".join(shown(plan))
    for fact in (
        "example/a model [8B]",
        "8.03B parameters in NF4, computed in bfloat16",
        "2.1 GiB of it stay in bfloat16: embeddings and output layer 2.1",
        "1,000 training examples with 250,000 tokens; 4,096 predicted tokens",
        "16 trials of 100 steps, reported at 20%, 40%, 60%, 80%, 100%",
        "tpe with pruner successive_halving, seed 3",
        "12 per worker; estimated peak 61.23 of 79.1 GiB",
        "12 seats: 13 would take 68.3 GiB",
    ):
        assert fact in text, text


def test_the_plan_says_what_was_lost_of_the_data_and_nothing_else(plan: Any) -> None:
    before = shown(plan, 200)
    assert not any(line.startswith("      ") and "record" in line for line in before)
    plan.data.notices = (
        DataNotice("evaluation: 2 records [of 3] not drawn"),
        DataNotice("training: cut", is_warning=True),
    )
    lines = shown(plan, 200)
    place = next(i for i, line in enumerate(lines) if line.startswith("data"))
    assert [line.strip() for line in lines[place + 1 : place + 3]] == [
        "evaluation: 2 records [of 3] not drawn",
        "warning: training: cut",
    ]
    assert [line for line in lines if line not in lines[place + 1 : place + 3]] == before


def test_what_does_not_fit_is_told_what_helps_and_never_a_smaller_batch_for_the_base_alone(
    plan: Any,
) -> None:
    plan.memory_available_gib = 60.0
    assert "which does not fit: lower seats" in " ".join(" ".join(shown(plan)).split())
    plan.worker_spec.seats = 1
    assert "lower per_device_train_batch_size" in " ".join(" ".join(shown(plan)).split())
    plan.base_gib = 60.5
    text = " ".join(" ".join(shown(plan)).split())
    assert "which does not fit: the base alone takes 60.50 GiB at any batch size" in text
    assert "device_map: auto" in text
    assert "lower per_device" not in text
    assert "lower seats" not in text


def test_the_plan_says_what_is_measured_on_how_much_and_when(plan: Any) -> None:
    def facts(metric: MetricSpec) -> str:
        context = plan.study_spec.context | {"metric": {"num_prompts": 9}}
        plan.study_spec = replace(plan.study_spec, metric=metric, context=context)
        return " ".join(" ".join(shown(plan, 200)).split())

    assert "metric" not in " ".join(shown(plan))
    text = facts(MetricSpec(name="contains", every=2, num_prompts=9))
    assert "metric contains (maximize): recorded beside the loss" in text
    assert "9 evaluation prompts, answers of at most 32 tokens; measured at 40%, 80%, 100%" in text
    assert "plus starting up and measuring the metric (estimate" in text
    text = facts(MetricSpec(name="m:f", direction="minimize", every=9, objective=True))
    assert "m:f (minimize): trials are searched and ranked by it" in text
    assert "9 evaluation prompts (of the 64 asked for, there are no more), answers" in text
    assert "measured at 100%, so no trial is pruned" in text
    text = facts(MetricSpec(name="lm_eval:some", num_prompts=9, max_new_tokens=0))
    assert "9 documents of the task; measured at 20%" in text


def test_the_plan_says_how_records_became_sequences_and_what_ends_them(plan: Any) -> None:
    plan.data.train.rendering = RenderingCounts(
        num_records=901,
        ways={"whole": (1, 1), "per turn": (900, 2000)},
        stop_tokens=(
            StopToken(id=7, text="<|im_end|>", num_turns=2000),
            StopToken(id=9, text="<|call|>", num_turns=1),
        ),
    )
    text = " ".join(" ".join(shown(plan)).split())
    for fact in (
        "1 conversation, one sequence each, with loss on the assistant's turns",
        "900 conversations as 2,000 sequences, one for each assistant turn",
        "stop tokens: <|im_end|> (id 7, 2,000 times), <|call|> (id 9, 1 times)",
    ):
        assert fact in text, text


def test_every_range_stands_on_one_line_beside_what_the_tables_say(plan: Blueprint) -> None:
    lines = shown(plan)
    for dimension in plan.study_spec.space.dimensions:
        assert any(line.split()[:1] == [dimension.name] for line in lines)
    rate = next(line for line in lines if line.startswith(" learning_rate"))
    assert " .. " in rate
    assert "(log)" in rate
    assert rate.split()[-1] == "2e-4"


def test_every_range_names_its_rows_and_its_condition(plan: Blueprint) -> None:
    text = " ".join(" ".join(shown(plan)).split())
    for dimension in plan.study_spec.space.dimensions:
        assert all(row in text for row in dimension.rows)
    assert "only where lr_scheduler_type is" in text


@pytest.mark.parametrize("width", [80, 100, 200])
def test_no_line_is_wider_than_the_terminal_and_no_name_is_broken(plan: Blueprint, width: int) -> None:
    lines = shown(plan, width)
    assert max(map(len, lines)) <= width
    words = {word.strip(",;:()") for line in lines for word in line.split()}
    rows = {row for dimension in plan.study_spec.space.dimensions for row in dimension.rows}
    assert rows <= words
    assert {"embedding_lr_ratio", "per_device_train_batch_size"} & words <= {
        d.name for d in plan.study_spec.space.dimensions
    }


def test_first_trials_tell_what_differs_from_the_default(plan: Blueprint) -> None:
    lines = shown(plan, 200)
    first = next(
        i for i, line in enumerate(lines) if line.startswith("0  guideline default: learning_rate 2e-4")
    )
    proposals = plan.study_spec.space.first_trials[:8]
    for number, proposal in enumerate(proposals[1:], start=1):
        assert lines[first + number].startswith(f"{number}  {proposal.label}")


def test_requested_dimensions_and_silence_of_the_documents_are_shown(
    study_spec: Callable[..., StudySpec], tmp_path: Path
) -> None:
    space = space_for(
        scenario="general",
        model_size=4.5e9,
        max_steps=100,
        train_embeddings=False,
        include=("lora_r", "weight_decay", "per_device_train_batch_size"),
        overrides={"learning_rate": {"low": 1e-3, "high": 1e-2}},
    )
    text = " ".join(" ".join(shown(blueprint(study_spec(tmp_path), space=space))).split())
    assert "no row: the documents are silent" in text
    assert "lora_r" in text
    assert "lies outside the range given by the user" in text
    assert "embedding_lr_ratio" not in text


def test_the_time_grows_with_trials_and_model_and_says_that_it_is_an_estimate(plan: Any) -> None:
    # 16 trials * (1600 examples * 250 tokens * 4 + 5 evaluations of 4096 tokens * 4) * 8.03e9 / (1e12 * 0.35)
    seconds = 16 * (100 * 8 * 2 * 250 * 4 + 5 * 4096 * 4) * 8.03e9 / (FLOPS * 0.35)
    assert time_estimate(plan, FLOPS).startswith(f"about {int(seconds // 3600)} h ")
    assert "estimate: 1 TFLOP/s measured here, 35% of it used" in time_estimate(plan, FLOPS)
    assert "about 4 h" in time_estimate(plan, seconds / 4.2 / 3600 * FLOPS)
