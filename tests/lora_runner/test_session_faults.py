"""A full disk and failing steps: only the trial at fault ends, the others are not affected."""

from __future__ import annotations

import errno
import threading
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from lora_runner.config import TrialConfig
from lora_runner.pack.pack import MicroBatch, Pack
from lora_runner.pack.seat import Seat
from lora_runner.protocol import COMPLETE, FAILED, OUT_OF_MEMORY, Assignment, SeatReport
from lora_runner.session import Session
from tests.small_disk import fill

Reports = dict[int, list[SeatReport]]
CONFIG = TrialConfig(
    learning_rate=2e-3,
    embedding_learning_rate=5e-4,
    lr_scheduler_type="linear",
    warmup_steps=2,
    max_steps=10,
    per_device_train_batch_size=2,
    gradient_accumulation_steps=2,
    lora_r=4,
    lora_alpha=8,
    seed=1,
)


def on(assignment: Assignment, disk: Path) -> Assignment:
    return replace(assignment, folder=str(disk / f"{assignment.number:04d}"))


# --- the disk -----------------------------------------------------------------------------------------


def test_a_checkpoint_that_finds_no_space_leaves_the_one_before_it(
    new_session: Callable[..., Session],
    assign: Callable[..., Assignment],
    run: Callable[..., Reports],
    numbers: Callable[..., Any],
    small_disk: Path,
) -> None:
    expected = run(new_session(), [assign(0, CONFIG)])[0]
    session = new_session()
    session.start_trial(0, on(assign(1, CONFIG), small_disk))
    before = session.advance(60)
    session.save(1)
    assert session.take_written() == [(session.trials[0].assignment, "checkpoint")]
    reported = [*before, *session.advance(60)]
    filling = fill(small_disk)
    session.save(1)
    (note,) = session.take_notes()
    assert note.startswith("trial 1: no checkpoint was written (")
    assert "No space left" in note
    assert session.take_written() == []
    # The trial goes on, and another process resumes from the older checkpoint.
    filling.unlink()
    again = new_session()
    again.start_trial(0, on(assign(1, CONFIG), small_disk))
    assert again.trials[0].seat.step == 2
    assert again.take_notes() == []
    assert numbers([*reported, *run(session)[1]]) == numbers(expected)
    assert numbers([*before, *run(again)[1]]) == numbers(expected)


def test_an_adapter_waits_for_space(
    new_session: Callable[..., Session],
    assign: Callable[..., Assignment],
    run: Callable[..., Reports],
    small_disk: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("lora_runner.trial_files.DISK_RETRY_SECONDS", 0.1)
    session, alive = new_session(), []
    session.heartbeat = lambda: alive.append(1)
    filling = fill(small_disk)
    threading.Timer(3, filling.unlink).start()
    reports = run(session, [on(assign(0, CONFIG), small_disk)])[0]
    assert reports[-1].outcome == COMPLETE
    assert (small_disk / "0000" / "adapter" / "adapter_model.safetensors").stat().st_size > 0
    assert any("trial 0: waits for the disk" in note for note in session.take_notes())
    assert len(alive) > 10, "the watchdog must not take waiting for a hang"


def test_a_disk_that_stays_full_is_an_error_in_the_end(
    new_session: Callable[..., Session], assign: Callable[..., Assignment], small_disk: Path, run: Any
) -> None:
    fill(small_disk)
    with pytest.raises(Exception, match="No space left"):
        run(new_session(disk_patience_seconds=0), [on(assign(0, CONFIG), small_disk)])


# --- steps, evaluations and samples that fail ---------------------------------------------------------


Train = Callable[..., Reports]
MISFIT = "a shape that fits nothing"


@pytest.fixture
def train(new_session: Callable[..., Session], assign: Callable[..., Assignment], run: Train) -> Train:
    """`train(1e-3, 2e-3)`: trials with these learning rates side by side, numbered from 0 or `first`."""

    def train(*rates: float, first: int = 0, session: Session | None = None) -> Reports:
        configs = [replace(CONFIG, learning_rate=rate) for rate in rates]
        trials = [assign(first + i, config) for i, config in enumerate(configs)]
        return run(session or new_session(len(rates)), trials)

    return train


@pytest.fixture
def sabotage(pack: Pack, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """`sabotage("train_step", {2e-3}, error)`: the pack's method raises `error()` whenever a seat with one of
    these learning rates takes part, from its third micro-batch on."""

    def sabotage(method: str, guilty: Collection[float], error: Callable[[], Exception]) -> None:
        compute = getattr(pack, method)

        def failing(seats: Iterable[Seat | None], *rest: Any) -> Any:
            for seat in seats:
                if seat is not None and seat.config.learning_rate in guilty and seat.micro_step >= 2:
                    raise error()
            return compute(seats, *rest)

        monkeypatch.setattr(pack, method, failing)

    return sabotage


def misfit() -> Exception:
    return RuntimeError(f"{MISFIT}\nand more of it")


def full() -> Exception:
    return OSError(errno.ENOSPC, "No space left on device")


def read_only() -> Exception:
    return OSError(errno.EROFS, "Read-only file system")


def device_fault() -> Exception:
    return RuntimeError("CUDA error: device-side assert triggered")


@pytest.mark.parametrize("method", ["train_step", "evaluate_records"])
def test_a_trial_that_fails_ends_with_its_traceback_and_its_neighbours_feel_nothing(
    train: Train,
    sabotage: Callable[..., None],
    numbers: Callable[[Sequence[SeatReport]], Any],
    method: str,
) -> None:
    expected = train(1e-3, 2e-3, 3e-3)
    sabotage(method, {2e-3}, misfit)
    found = train(1e-3, 2e-3, 3e-3, first=10)
    assert numbers(found[10]) == numbers(expected[0])
    assert numbers(found[12]) == numbers(expected[2])
    (failed,) = found[11]
    assert (failed.outcome, failed.stop_reason) == (FAILED, f"RuntimeError: {MISFIT}")
    assert failed.eval_loss is None
    assert failed.error is not None
    assert failed.error.startswith("Traceback")
    assert "and more of it" in failed.error


@pytest.mark.parametrize("error", [RuntimeError, ValueError, IndexError])
def test_a_trial_that_fails_alone_on_its_pack_has_ended_too(
    error: type[Exception], train: Train, sabotage: Callable[..., None]
) -> None:
    sabotage("train_step", {2e-3}, lambda: error(MISFIT))
    (failed,) = train(2e-3)[0]
    assert (failed.outcome, failed.stop_reason) == (FAILED, f"{error.__name__}: {MISFIT}")


@pytest.mark.parametrize("rates", [(1e-3,), (1e-3, 2e-3)], ids=["alone", "beside another"])
@pytest.mark.parametrize("error", [full, read_only])
def test_a_disk_that_takes_no_kernel_is_no_trials_fault(
    error: Callable[[], Exception], rates: tuple[float, ...], train: Train, sabotage: Callable[..., None]
) -> None:
    sabotage("train_step", {1e-3}, error)
    with pytest.raises(OSError, match=r"No space left|Read-only"):
        train(*rates)


def test_nor_is_one_that_fills_up_while_the_trials_are_tried_one_by_one(
    train: Train, sabotage: Callable[..., None]
) -> None:
    errors = iter([misfit(), full()])
    sabotage("train_step", {1e-3}, lambda: next(errors))
    with pytest.raises(OSError, match="No space left"):
        train(1e-3, 2e-3)


def test_memory_that_runs_out_while_a_step_is_taken_apart_is_no_failure(
    pack: Pack, train: Train, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = pack.train_step

    def failing(micro_batches: dict[Seat, MicroBatch]) -> Any:
        if len(micro_batches) > 1:
            raise misfit()
        if any(seat.config.learning_rate == 2e-3 for seat in micro_batches):
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return step(micro_batches)

    monkeypatch.setattr(pack, "train_step", failing)
    found = train(1e-3, 2e-3)
    assert [found[number][-1].outcome for number in (0, 1)] == [COMPLETE, OUT_OF_MEMORY]


@pytest.mark.parametrize(
    ("method", "guilty", "error", "message"),
    [
        ("train_step", {1e-3, 2e-3}, misfit, MISFIT),
        ("train_step", {1e-3}, device_fault, "CUDA error"),
        (
            "evaluate_records",
            {1e-3, 2e-3},
            misfit,
            f"none of 2 seats could be computed: .*RuntimeError: {MISFIT}",
        ),
        ("evaluate_records", {1e-3}, device_fault, "CUDA error"),
        ("evaluate_records", {1e-3}, full, "No space left"),
    ],
)
def test_where_all_fail_or_the_device_or_the_disk_no_trial_is_blamed(
    train: Train,
    sabotage: Callable[..., None],
    method: str,
    guilty: set[float],
    error: Callable[[], Exception],
    message: str,
) -> None:
    sabotage(method, guilty, error)
    with pytest.raises((RuntimeError, OSError), match=f"(?s){message}"):
        train(1e-3, 2e-3)


def test_a_trial_whose_samples_fail_is_complete_without_them(
    train: Train,
    sabotage: Callable[..., None],
    new_session: Callable[..., Session],
    numbers: Callable[[Sequence[SeatReport]], Any],
) -> None:
    expected = train(1e-3, 2e-3)
    sabotage("generate", {2e-3}, lambda: IndexError("beyond the end"))
    session = new_session(2)
    found = train(1e-3, 2e-3, first=10, session=session)
    assert numbers(found[10]) == numbers(expected[0])
    assert (found[11][-1].outcome, found[11][-1].eval_loss) == (COMPLETE, expected[1][-1].eval_loss)
    assert found[11][-1].generations == ()
    assert session.take_notes() == ["trial 11: no text could be sampled (IndexError: beyond the end)"]
