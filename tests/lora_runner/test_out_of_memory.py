"""Memory that runs out costs the trial that asked for most of it, and no other."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch

from lora_runner.config import TrialConfig
from lora_runner.messages import Assignment, SeatReport
from lora_runner.pack import MicroBatch, Pack
from lora_runner.seats import PendingStats, Seat
from lora_runner.session import Session

Reports = dict[int, list[SeatReport]]
FIRST = TrialConfig(
    learning_rate=2e-2,
    embedding_learning_rate=5e-3,
    lr_scheduler_type="cosine",
    max_steps=10,
    per_device_train_batch_size=4,
    lora_r=8,
    lora_alpha=16,
    lora_dropout=0.1,
    seed=1,
)
SECOND = replace(FIRST, max_steps=6, gradient_accumulation_steps=2, lora_r=4, seed=2)


class Tight(Pack):
    """A GPU whose memory is too small for what the test says."""

    too_much: Callable[[Sequence[Any]], bool] = staticmethod(lambda seats: False)
    where = "start"

    def train_step(self, batches: Mapping[Seat, MicroBatch]) -> dict[Seat, PendingStats]:
        if self.where in ("start", "update") and self.too_much(list(batches)):
            if self.where == "update":  # gradients have been added to every seat
                self.micro_step(batches)
                self.update([seat for seat in list(batches)[:1] if seat.window_is_full])
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 MiB.\nGPU 0 has no more.")
        return super().train_step(batches)

    def evaluate(self, seats: Sequence[Seat | None], blocks: Sequence[Any]) -> list[float]:
        if self.where == "evaluate" and self.too_much(seats):
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return super().evaluate(seats, blocks)

    def generate(self, seats: Sequence[Seat | None], *arguments: Any) -> list[list[list[int]]]:
        if self.where == "generate" and self.too_much(seats):
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return super().generate(seats, *arguments)


@pytest.fixture(scope="module")
def tight(new_pack: Callable[..., Pack]) -> Tight:
    pack = new_pack(cls=Tight)
    assert isinstance(pack, Tight)
    return pack


@pytest.mark.parametrize("where", ["start", "update"])
def test_out_of_memory_ends_the_largest_trial_and_costs_the_others_nothing(
    new_session: Callable[..., Session],
    assign: Callable[..., Assignment],
    tight: Tight,
    where: str,
    run: Callable[..., Reports],
    numbers: Callable[..., Any],
) -> None:
    large = replace(FIRST, lora_r=64)
    tight.where = where
    # Not from the first step on: windows are half full, moments are not zero.
    tight.too_much = lambda seats: (
        sum(s.num_trained for s in seats) > 230_000 and max(s.micro_step for s in seats) >= 3
    )
    reports = run(new_session(3, on=tight), [assign(0, FIRST), assign(1, large), assign(2, SECOND)])
    end = reports[1][-1]
    assert end.outcome == "out_of_memory"
    assert end.stop_reason == "out of memory: CUDA out of memory. Tried to allocate 20 MiB."
    assert (end.eval_loss, end.step) == (None, 3)
    for number, config in ((0, FIRST), (2, SECOND)):
        assert numbers(reports[number]) == numbers(
            run(new_session(), [assign(10 + number, config)])[10 + number]
        )


def test_the_only_trial_that_does_not_fit_ends_too(
    new_session: Callable[..., Session],
    assign: Callable[..., Assignment],
    tight: Tight,
    run: Callable[..., Reports],
) -> None:
    tight.where, tight.too_much = "start", lambda seats: True
    session = new_session(on=tight)
    (report,) = run(session, [assign(0, FIRST)])[0]
    assert (report.outcome, report.percent, report.step) == ("out_of_memory", 0, 0)
    assert math.isnan(report.train_loss)
    assert session.free_seats == [0]


def test_an_evaluation_too_large_for_all_seats_is_made_seat_by_seat(
    new_session: Callable[..., Session],
    assign: Callable[..., Assignment],
    tight: Tight,
    run: Callable[..., Reports],
    numbers: Callable[..., Any],
) -> None:
    same = [replace(FIRST, seed=seed) for seed in (1, 2)]
    for where in ("evaluate", "generate"):
        tight.where, tight.too_much = where, lambda seats: len(seats) > 1
        reports = run(new_session(2, on=tight), [assign(i, config) for i, config in enumerate(same)])
        for i, config in enumerate(same):
            assert numbers(reports[i]) == numbers(run(new_session(), [assign(10 + i, config)])[10 + i])


def test_a_trial_whose_evaluation_never_fits_ends_and_the_others_go_on(
    new_session: Callable[..., Session],
    assign: Callable[..., Assignment],
    tight: Tight,
    run: Callable[..., Reports],
    numbers: Callable[..., Any],
) -> None:
    same = [replace(FIRST, seed=1), replace(FIRST, seed=2)]
    tight.where, tight.too_much = "evaluate", lambda seats: any(s is not None and s.seed == 2 for s in seats)
    reports = run(new_session(2, on=tight), [assign(i, config) for i, config in enumerate(same)])
    assert [(r.percent, r.outcome, r.eval_loss) for r in reports[1]] == [(20, "out_of_memory", None)]
    assert "per_device_eval_batch_size" in (reports[1][0].stop_reason or "")
    assert numbers(reports[0]) == numbers(run(new_session(), [assign(10, same[0])])[10])


def test_samples_that_do_not_fit_cost_a_trial_only_its_samples(
    new_session: Callable[..., Session],
    assign: Callable[..., Assignment],
    tight: Tight,
    run: Callable[..., Reports],
) -> None:
    tight.where, tight.too_much = "generate", lambda seats: seats[0] is not None
    end = run(new_session(on=tight), [assign(0, FIRST)])[0][-1]
    assert (end.outcome, end.generations) == ("complete", ())
