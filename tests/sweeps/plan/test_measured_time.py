"""The time of a sweep from what was measured: steps in a process of their own, or its earlier runs."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from search_spaces import space_for
from sweeps.errors import SweepError
from sweeps.plan.specs import StudySpec
from sweeps.plan.timing import measured_steps
from sweeps.plan.timing.measured_steps import MeasuredSteps, largest_trial, measure_steps
from sweeps.plan.timing.time_estimate import measured_run, time_from_steps
from sweeps.study.read_status import RUN_SECONDS
from sweeps.sweep import Sweep

SWEEP = """\
name: small
model: {model}
data: {{train: data.jsonl, eval_fraction: 0.2, max_length: 32}}
training: {{max_steps: 10, per_device_train_batch_size: 2, gradient_accumulation_steps: 2}}
trials: 4
seats: 3
output: runs
"""


@pytest.mark.slow
def test_real_steps_give_the_speed_and_the_memory(
    tiny_model: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "data.jsonl").write_text(
        "".join(f'{{"prompt": "w{i}:", "completion": "{"abc" * (1 + i % 3)}"}}\n' for i in range(60))
    )
    (tmp_path / "s.yaml").write_text(SWEEP.format(model=tiny_model("llama")))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(measured_steps, "TRAINING_SECONDS", 0.0)
    monkeypatch.setattr(measured_steps, "EVALUATION_SECONDS", 0.0)
    before = sorted(tmp_path.rglob("*"))
    blueprint = Sweep.load(tmp_path / "s.yaml").plan()
    found = measure_steps(blueprint)
    lengths = [len(example.input_ids) for example in blueprint.data.train.examples]
    assert (found.seats, found.batches) == (3, 1)
    assert 3 * 2 * min(lengths) <= found.train_tokens <= 3 * 2 * max(lengths)
    size = blueprint.worker_spec.session.per_device_eval_batch_size
    evaluated = [len(example.input_ids) for example in blueprint.data.eval.examples[:size]]
    assert found.eval_tokens == 3 * sum(evaluated)
    assert min(found.train_seconds, found.eval_seconds, found.start_seconds) > 0
    assert 0.2 < found.peak_gib < 8  # the libraries at least
    assert sorted(tmp_path.rglob("*")) == before
    time = time_from_steps(blueprint, found)
    mean = sum(lengths) / len(lengths)
    assert time.training_seconds == pytest.approx(4 * 10 * 2 * 2 * mean / found.train_speed)
    reports = len(blueprint.study_spec.report_at)
    assert time.evaluation_seconds == pytest.approx(
        4 * reports * blueprint.data.eval.num_tokens / found.eval_speed
    )


def test_the_largest_trial_of_the_space_is_measured(
    study_spec: Callable[..., StudySpec], tmp_path: Path
) -> None:
    plain = study_spec(tmp_path)
    default = plain.trial_config(plain.space.first_trials[0].params)
    assert largest_trial(plain) == default
    space = space_for(
        scenario="general",
        model_size=8.03e9,
        max_steps=100,
        train_embeddings=True,
        include=("lora_r",),
        overrides={"lora_r": {"low": 8, "high": 64}},
    )
    found = largest_trial(replace(plain, space=space))
    assert (found.lora_r, found.learning_rate) == (64, default.learning_rate)


@pytest.mark.parametrize(
    ("code", "stderr", "said"),
    [
        (-9, b"", "ended by signal 9, as happens when memory runs out"),
        (1, b"Traceback\nModelError: no such weights\n", "nothing was measured: ModelError: no such weights"),
        (1, b"", "nothing was measured: the process failed"),
    ],
)
def test_a_failure_says_why_nothing_was_measured(
    study_spec: Callable[..., StudySpec],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    code: int,
    stderr: bytes,
    said: str,
) -> None:
    blueprint: Any = SimpleNamespace(
        study_spec=study_spec(tmp_path), worker_spec=None, num_workers=1, device=SimpleNamespace(kind="cpu")
    )
    ended = subprocess.CompletedProcess([], code, b"", stderr)
    monkeypatch.setattr(measured_steps.subprocess, "run", lambda *_, **__: ended)
    with pytest.raises(SweepError, match=said):
        measure_steps(blueprint)


def test_speeds_are_of_all_seats() -> None:
    found = MeasuredSteps(
        seats=4,
        start_seconds=1.0,
        batches=2,
        train_tokens=600,
        train_seconds=3.0,
        eval_tokens=900,
        eval_seconds=2.0,
        peak_gib=1.0,
    )
    assert (found.train_speed, found.eval_speed) == (200.0, 450.0)


# --- earlier runs -------------------------------------------------------------------------------------


@pytest.mark.parametrize("pruner", ["none", "successive_halving"])
def test_an_earlier_run_gives_the_seconds_of_a_full_trial(
    make_keeper: Callable[..., Any], pack: Any, new_database: Callable[[str], str], pruner: str
) -> None:
    url = new_database("study")
    assert measured_run(lambda: url, "t") is None  # before the sweep has run
    keeper = make_keeper(url=url, trials=8, pruner=pruner)
    keeper.register(0, 3.5)
    pack(keeper).run()
    keeper.study.set_user_attr(RUN_SECONDS, 90.0)
    steps = [trial.user_attrs["num_steps"] for trial in keeper.study.trials]
    assert (min(steps) < 100) == (pruner != "none")
    found = measured_run(lambda: url, "t")
    assert found is not None
    assert found.full_trials == pytest.approx(sum(steps) / 100)
    assert found.trial_seconds == pytest.approx(90 * 100 / sum(steps))


def test_less_than_a_full_trial_or_no_time_is_no_measurement(
    make_keeper: Callable[..., Any], pack: Any, new_database: Callable[[str], str]
) -> None:
    url = new_database("study")
    keeper = make_keeper(url=url, trials=2)
    keeper.register(0, 3.5)
    worker = pack(keeper, seats=1)
    worker.ask()
    keeper.study.set_user_attr(RUN_SECONDS, 90.0)
    assert measured_run(lambda: url, "t") is None
    worker.run()
    assert measured_run(lambda: url, "t") is not None
    keeper.study.set_user_attr(RUN_SECONDS, 0.0)
    assert measured_run(lambda: url, "t") is None
    assert measured_run(lambda: url, "another") is None
