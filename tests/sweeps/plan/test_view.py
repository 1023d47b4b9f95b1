"""What `sweeps plan` prints: first what matters, then details."""

from __future__ import annotations

import inspect
import io
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import optuna
import pytest
from rich.console import Console

from lora_runner.data import DataNotice, RenderingCounts, StopToken
from lora_runner.memory.planned_device import GIB, PlannedDevice
from lora_runner.metric.scores import MetricSpec
from search_spaces import space_for
from sweeps.plan.blueprint import Blueprint
from sweeps.plan.specs import StudySpec
from sweeps.plan.timing.measured_steps import MeasuredSteps
from sweeps.plan.timing.time_estimate import (
    MeasuredRun,
    busy_warning,
    time_estimate,
    time_lines,
    time_summary,
)
from sweeps.plan.trial_kinds import STARTUP_TRIALS, first_trials, trial_counts, trial_kinds
from sweeps.plan.view.details import details
from sweeps.plan.view.overview import overview, peak_text
from sweeps.study.curve_gp.sampler import CurveGPSampler

FLOPS = 1e12


class Training:
    """The counts of a training set."""

    num_tokens = 250_000
    rendering = RenderingCounts()

    def __len__(self) -> int:
        return 1000


class Evaluation:
    """The counts of an evaluation set."""

    num_tokens, num_target_tokens = 6000, 4096

    def __len__(self) -> int:
        return 30


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
        data=SimpleNamespace(notices=(), train=Training(), eval=Evaluation()),
        config=SimpleNamespace(
            model=SimpleNamespace(name="example/a model [8B]"),
            search=SimpleNamespace(sampler="tpe", pruner="successive_halving", seed=3),
        ),
        memory_gib=61.234,
        memory_available_gib=79.1,
        memory_reason="12 seats: 13 would take 68.3 GiB",
        compute_path=["general on this machine, whose device is cpu"],
        device=PlannedDevice(kind="cuda", name="NVIDIA H100", memory=80.0 * GIB, count=4),
        num_workers=4,
        fits=True,
        base_gib=5.6,
        base_kind="in NF4",
        base_unquantized="2.1 GiB of it stay in bfloat16: embeddings and output layer 2.1",
    )


def shown(plan: Blueprint, width: int = 100, *, flops: float | None = FLOPS) -> list[str]:
    return printed(overview(plan, flops), width) + printed(details(plan), width)


def printed(view: Any, width: int) -> list[str]:
    console = Console(file=io.StringIO(), width=width)
    with console.capture() as capture:
        console.print(view)
    return [line.rstrip() for line in capture.get().splitlines()]


@pytest.fixture
def plan(study_spec: Callable[..., StudySpec], tmp_path: Path) -> Any:
    return blueprint(study_spec(tmp_path, trials=16))


def test_the_first_screen_holds_what_matters(plan: Any) -> None:
    lines = printed(overview(plan, FLOPS), 80)
    assert len(lines) <= 21
    assert max(map(len, lines)) <= 80
    first = [line.split()[0] for line in lines if line and not line.startswith(" ")]
    assert first == ["t", "Fits", "Device", "Time", "Trials", "Model", "Data"]
    text = " ".join(" ".join(lines).split())
    for fact in (
        "Fits yes: 12 trials at a time on each of 4 GPUs, 61.23 of 79.1 GiB",
        "Device NVIDIA H100 ",
        "16 of 100 steps: 4 with the tables' values, then 12 by tpe (at random until 10 have finished)",
        "stopped early by successive_halving at 40%, 80%",
        "example/a model [8B], 8.03B parameters in NF4",
        "1,000 examples with 250,000 tokens to train on, 30 to evaluate on",
    ):
        assert fact in text, text


def test_details_hold_the_rest(plan: Any) -> None:
    text = "\n".join(printed(details(plan), 100))
    for fact in (
        "2.1 GiB of it stay in bfloat16: embeddings and output layer 2.1",
        "tpe with pruner successive_halving, seed 0",
        "12 seats: 13 would take 68.3 GiB",
        "general on this machine, whose device is cpu",
        "on 4,096 predicted tokens",
    ):
        assert fact in text, text


def test_no_sentence_stands_twice(plan: Any) -> None:
    plan.memory_reason = "12 seats: as asked; the base fits"
    sentences = [line.strip() for line in shown(plan, 200) if len(line.split()) > 4]
    assert len(sentences) == len(set(sentences))


def test_warnings_about_the_data_and_the_device_are_on_the_first_screen_and_other_notices_are_details(
    plan: Any,
) -> None:
    plan.data.notices = (
        DataNotice("evaluation: 2 records [of 3] not drawn"),
        DataNotice("training: cut", is_warning=True),
    )
    first = "\n".join(printed(overview(plan, FLOPS, "a GPU is not used"), 100))
    assert "warning: training: cut" in first
    assert "warning: a GPU is not used" in first
    assert "not drawn" not in first
    later = "\n".join(printed(details(plan), 100))
    assert "evaluation: 2 records [of 3] not drawn" in later
    assert "training: cut" not in later


def test_what_does_not_fit_is_told_what_helps_and_never_a_smaller_batch_for_the_base_alone(
    plan: Any,
) -> None:
    def fits() -> str:
        return " ".join(" ".join(printed(overview(plan, FLOPS), 80)).split())

    plan.memory_available_gib, plan.fits = 60.0, False
    assert "Fits no: 61.23 GiB for 12 trials at a time, 60.0 are there. Lower seats (how many" in fits()
    plan.worker_spec.seats = 1
    assert "Lower per_device_train_batch_size" in fits()
    plan.base_gib = 60.5
    text = fits()
    assert "The base alone takes 60.50 GiB at any batch size" in text
    assert "device_map: auto" in text
    assert "Lower per_device" not in text
    assert "Lower seats" not in text


def test_the_plan_says_what_is_measured_on_how_much_and_when(plan: Any) -> None:
    def facts(metric: MetricSpec) -> str:
        context = plan.study_spec.context | {"metric": {"num_prompts": 9}}
        plan.study_spec = replace(plan.study_spec, metric=metric, context=context)
        return " ".join(" ".join(shown(plan, 200)).split())

    assert "Metric" not in " ".join(shown(plan))
    text = facts(MetricSpec(name="contains", every=2, num_prompts=9))
    assert "Metric contains (maximize): recorded beside the loss" in text
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
        "answers end with <|im_end|>, <|call|>",
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
    proposals = plan.study_spec.space.first_trials[:4]
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
    # 16 trials * (1600 examples * 250 tokens * 4 + 5 evaluations of 6000 tokens * 2) * 8.03e9 / (1e12 * 0.35)
    training = 16 * 100 * 8 * 2 * 250 * 4 * 8.03e9 / (FLOPS * 0.35)
    evaluation = 16 * 5 * 6000 * 2 * 8.03e9 / (FLOPS * 0.35)
    found = time_estimate(plan, FLOPS)
    assert (found.training_seconds, found.evaluation_seconds) == pytest.approx((training, evaluation))
    first, basis = time_lines(plan, FLOPS)
    assert first.startswith(f"about {int((training + evaluation) // 3600)} h ")
    assert basis == "(estimate: 1 TFLOP/s measured here, 35% of it used; 4% of it evaluation)"
    assert "about 4 h" in time_lines(plan, (training + evaluation) / 4.2 / 3600 * FLOPS)[0]


def test_a_long_evaluation_is_told_with_what_shortens_it(plan: Any) -> None:
    plan.data.eval.num_tokens = 600_000
    *_, basis, hint = time_lines(plan, FLOPS)
    assert basis.endswith("79% of it evaluation)")
    assert hint.startswith("fewer data.max_eval_examples")
    summary = time_summary(plan, FLOPS)
    assert summary is not None
    assert summary["evaluation_share"] == pytest.approx(0.79, abs=0.01)


def test_what_an_earlier_run_took_replaces_the_estimate(plan: Any) -> None:
    measured = MeasuredRun(seconds=600.0, full_trials=8.0)
    first, basis = time_lines(plan, FLOPS, measured)
    assert first.startswith("about 20 min 0 s if nothing is pruned")  # 16 trials of 75 s
    assert basis == "(measured: this sweep ran 8.0 full trials in 10 min 0 s)"
    summary = time_summary(plan, FLOPS, measured)
    assert summary is not None
    assert (summary["seconds"], summary["basis"]) == (1200.0, "earlier runs of this sweep")
    assert time_summary(plan, None) is None


def test_steps_measured_now_replace_both(plan: Any) -> None:
    """16 trials of 100 steps of 16 examples of 250 tokens; 16 * 5 evaluations of 6000 tokens."""
    steps = MeasuredSteps(
        seats=12,
        start_seconds=31.0,
        batches=3,
        train_tokens=200_000,
        train_seconds=10.0,
        eval_tokens=120_000,
        eval_seconds=5.0,
        peak_gib=55.5,
    )
    seconds = 16 * 100 * 16 * 250 / 20_000 + 16 * 5 * 6000 / 24_000  # 340
    earlier = MeasuredRun(seconds=600.0, full_trials=8.0)
    text = " ".join(" ".join(printed(overview(plan, FLOPS, measured=earlier, steps=steps), 80)).split())
    for fact in (
        "79.1 GiB (estimated; measured now on the longest records: 55.50 GiB)",
        "about 5 min 40 s on one worker if nothing is pruned, plus 31 s to start",
        "(measured now: 20,000 tokens/s in training, 24,000 in evaluation, with 12 trials at a time; 6%",
    ):
        assert fact in text, text
    assert "earlier" not in text
    summary = time_summary(plan, FLOPS, earlier, steps)
    assert summary is not None
    assert (summary["seconds"], summary["basis"]) == (pytest.approx(seconds), "steps measured now")
    assert summary["evaluation_share"] == pytest.approx(20 / 340)
    small = replace(steps, peak_gib=79.2)
    assert [peak_text(plan, each).style for each in (steps, small)] == ["", "bold red"]


def test_a_busy_machine_is_told() -> None:
    assert busy_warning(1.0, 2) is None
    assert busy_warning(None, 2) is None
    assert "busy (load average 11.2 on 2 cores)" in str(busy_warning(11.2, 2))


def test_the_time_on_a_gpu_that_is_not_here_is_unknown(plan: Any) -> None:
    plan.device = PlannedDevice.named("24GiB")
    text = " ".join(" ".join(shown(plan, flops=None)).split())
    assert "Device a GPU with 24 GiB (not this machine)" in text
    assert "Time unknown until it runs on a GPU with 24 GiB" in text
    assert "TFLOP" not in text


# --- which trials ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("trials", "search", "words"),
    [
        (1, {}, "1 with the tables' values"),
        (6, {}, "1 with the tables' values, then 5 at random (tpe begins after 10)"),
        (40, {"startup_trials": 4}, "then 33 by tpe (at random until 4 have finished)"),
        (40, {"sampler": "random"}, "then 33 at random"),
        (40, {"sampler": "cmaes"}, "then 33 by cmaes"),
        (40, {"sampler": "curve_gp"}, "then 33 by curve_gp (spread evenly until 8 have reported)"),
        (40, {"sampler": "grid"}, "1 with the tables' values, then 39 points of the grid"),
    ],
)
def test_trials_are_counted_by_where_their_values_come_from(
    study_spec: Callable[..., StudySpec], tmp_path: Path, trials: int, search: dict[str, Any], words: str
) -> None:
    spec = study_spec(tmp_path, trials=trials, **search)
    assert trial_kinds(spec).endswith(words)
    assert sum(trial_counts(spec).values()) == trials


def test_trials_at_random_before_the_model_are_counted_apart(
    study_spec: Callable[..., StudySpec], tmp_path: Path
) -> None:
    assert trial_counts(study_spec(tmp_path, trials=16)) == {"tables": 4, "startup": 6, "sampler": 6}
    assert trial_counts(study_spec(tmp_path, trials=16, sampler="random"))["startup"] == 0


def test_as_many_first_trials_are_listed_as_the_keeper_enqueues(
    make_keeper: Callable[..., Any], stored: Callable[[Any], list[Any]]
) -> None:
    keeper = make_keeper(trials=19)
    keeper.register(0, 3.5)
    labels = [trial.user_attrs["label"] for trial in stored(keeper) if "label" in trial.user_attrs]
    assert labels == [trial.label for trial in first_trials(keeper.study_spec)]
    assert len(labels) == 4


def test_start_up_is_as_long_as_the_samplers_say() -> None:
    own = {
        "tpe": optuna.samplers.TPESampler,
        "gp": optuna.samplers.GPSampler,
        "cmaes": optuna.samplers.CmaEsSampler,
        "curve_gp": CurveGPSampler,
    }
    assert {
        name: inspect.signature(sampler).parameters["n_startup_trials"].default
        for name, sampler in own.items()
    } == STARTUP_TRIALS
