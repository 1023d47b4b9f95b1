"""A disk that fills up, and steps that fail: who is to blame ends, everybody else feels nothing."""

from __future__ import annotations

import errno
import threading
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from lora_runner.config import TrialConfig
from lora_runner.messages import COMPLETE, FAILED, OUT_OF_MEMORY, Assignment, SeatReport
from lora_runner.pack import MicroBatch, Pack
from lora_runner.seats import Seat
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


# --- the disk -------------------------------------------------------------------------------------


def test_a_checkpoint_that_finds_no_space_leaves_the_one_before_it(
    new_session: Callable[..., Session],
    assign: Callable[..., Assignment],
    run: Callable[..., Reports],
    numbers: Callable[..., Any],
    small_disk: Path,
) -> None:
    expected = run(new_session(), [assign(0, CONFIG)])[0]
    session = new_session()
    session.place(0, on(assign(1, CONFIG), small_disk))
    before = session.advance(60)
    session.save(1)
    assert session.take_written() == [(session.running[0].assignment, "checkpoint")]
    reported = [*before, *session.advance(60)]
    filling = fill(small_disk)
    session.save(1)
    (note,) = session.take_notes()
    assert note.startswith("trial 1: no checkpoint was written (")
    assert "No space left" in note
    assert session.take_written() == []
    # It goes on all the same; and another process goes on from the older checkpoint.
    filling.unlink()
    again = new_session()
    again.place(0, on(assign(1, CONFIG), small_disk))
    assert again.running[0].seat.step == 2
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
    session.alive = lambda: alive.append(1)
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


# --- steps that fail ------------------------------------------------------------------------------


MISFIT = "a shape that fits nothing"


class Sabotage:
    """A pack whose step fails from the third micro-batch on when one of these learning rates takes part."""

    def __init__(
        self,
        pack: Pack,
        rates: Collection[float],
        message: str = "a shape that fits nothing",
        error: Callable[[str], Exception] = RuntimeError,
    ) -> None:
        self._step, self._rates, self._message, self._error = pack.train_step, rates, message, error
        self._calls: dict[float, int] = {}

    def __call__(self, micro_batches: dict[Seat, MicroBatch]) -> Any:
        for seat in micro_batches:
            rate = seat.config.learning_rate
            if rate in self._rates and seat.micro_step >= 2:
                raise self._error(f"{self._message}\nand more of it")
        return self._step(micro_batches)


def rates(*values: float) -> list[TrialConfig]:
    return [replace(CONFIG, learning_rate=value) for value in values]


def test_a_trial_whose_step_fails_ends_with_its_traceback_and_its_neighbours_feel_nothing(
    pack: Pack,
    new_session: Callable[..., Session],
    assign: Callable[..., Assignment],
    run: Callable[..., Reports],
    numbers: Callable[[Sequence[SeatReport]], Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    configs = rates(1e-3, 2e-3, 3e-3)
    expected = run(new_session(3), [assign(i, config) for i, config in enumerate(configs)])
    monkeypatch.setattr(pack, "train_step", Sabotage(pack, {2e-3}))
    found = run(new_session(3), [assign(10 + i, config) for i, config in enumerate(configs)])
    assert numbers(found[10]) == numbers(expected[0])
    assert numbers(found[12]) == numbers(expected[2])
    (failed,) = found[11]
    assert (failed.outcome, failed.stop_reason) == (FAILED, "RuntimeError: a shape that fits nothing")
    assert failed.error is not None
    assert failed.error.startswith("Traceback")
    assert "and more of it" in failed.error


@pytest.mark.parametrize("error", [RuntimeError, ValueError, IndexError])
def test_a_trial_that_fails_alone_on_its_pack_has_ended_too(
    error: type[Exception],
    pack: Pack,
    new_session: Callable[..., Session],
    assign: Callable[..., Assignment],
    run: Callable[..., Reports],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(pack, "train_step", Sabotage(pack, {2e-3}, error=error))
    (failed,) = run(new_session(), [assign(0, CONFIG)])[0]
    assert (failed.outcome, failed.stop_reason) == (FAILED, f"{error.__name__}: a shape that fits nothing")


def full(message: str) -> Exception:
    return OSError(errno.ENOSPC, f"No space left on device: {message}")


def read_only(message: str) -> Exception:
    return OSError(errno.EROFS, f"Read-only file system: {message}")


@pytest.mark.parametrize("seats", [1, 2])
@pytest.mark.parametrize("error", [full, read_only])
def test_a_disk_that_takes_no_kernel_is_no_trials_fault(
    error: Callable[[str], Exception],
    seats: int,
    pack: Pack,
    new_session: Callable[..., Session],
    assign: Callable[..., Assignment],
    run: Callable[..., Reports],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    trials = [assign(i, config) for i, config in enumerate(rates(1e-3, 2e-3)[:seats])]
    monkeypatch.setattr(pack, "train_step", Sabotage(pack, {1e-3}, error=error))
    with pytest.raises(OSError, match="a shape that fits nothing"):
        run(new_session(seats), trials)


def test_nor_is_one_that_fills_up_while_the_trials_are_tried_one_by_one(
    pack: Pack,
    new_session: Callable[..., Session],
    assign: Callable[..., Assignment],
    run: Callable[..., Reports],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    answers = iter([RuntimeError("the first"), full("then the disk")])
    monkeypatch.setattr(pack, "train_step", Sabotage(pack, {1e-3}, error=lambda _: next(answers)))
    with pytest.raises(OSError, match="then the disk"):
        run(new_session(2), [assign(i, config) for i, config in enumerate(rates(1e-3, 2e-3))])


def test_memory_that_runs_out_while_a_step_is_taken_apart_is_no_failure(
    pack: Pack,
    new_session: Callable[..., Session],
    assign: Callable[..., Assignment],
    run: Callable[..., Reports],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    step = pack.train_step

    def failing(micro_batches: dict[Seat, MicroBatch]) -> Any:
        if len(micro_batches) > 1:
            raise RuntimeError(MISFIT)
        if any(seat.config.learning_rate == 2e-3 for seat in micro_batches):
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return step(micro_batches)

    monkeypatch.setattr(pack, "train_step", failing)
    found = run(new_session(2), [assign(i, config) for i, config in enumerate(rates(1e-3, 2e-3))])
    assert [found[number][-1].outcome for number in (0, 1)] == [COMPLETE, OUT_OF_MEMORY]


@pytest.mark.parametrize(
    ("guilty", "message"),
    [({1e-3, 2e-3}, "the machine is broken"), ({1e-3}, "CUDA error: device-side assert triggered")],
)
def test_where_all_fail_or_the_device_itself_no_trial_is_blamed(
    pack: Pack,
    new_session: Callable[..., Session],
    assign: Callable[..., Assignment],
    run: Callable[..., Reports],
    monkeypatch: pytest.MonkeyPatch,
    guilty: set[float],
    message: str,
) -> None:
    monkeypatch.setattr(pack, "train_step", Sabotage(pack, guilty, message))
    with pytest.raises(RuntimeError, match=message):
        run(new_session(2), [assign(i, config) for i, config in enumerate(rates(1e-3, 2e-3))])


# --- evaluations and samples that fail ------------------------------------------------------------


def sabotaged(
    pack: Pack, monkeypatch: pytest.MonkeyPatch, method: str, guilty: Collection[float], error: Exception
) -> None:
    """Let `method` of the pack fail whenever a seat with one of these learning rates takes part."""
    compute = getattr(pack, method)

    def failing(seats: Sequence[Seat | None], *rest: Any) -> Any:
        if any(seat is not None and seat.config.learning_rate in guilty for seat in seats):
            raise error
        return compute(seats, *rest)

    monkeypatch.setattr(pack, method, failing)


def test_a_trial_whose_evaluation_fails_ends_with_its_traceback_and_its_neighbours_feel_nothing(
    pack: Pack,
    new_session: Callable[..., Session],
    assign: Callable[..., Assignment],
    run: Callable[..., Reports],
    numbers: Callable[[Sequence[SeatReport]], Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    configs = rates(1e-3, 2e-3, 3e-3)
    expected = run(new_session(3), [assign(i, config) for i, config in enumerate(configs)])
    sabotaged(pack, monkeypatch, "evaluate", {2e-3}, IndexError("beyond the end\nand more of it"))
    found = run(new_session(3), [assign(10 + i, config) for i, config in enumerate(configs)])
    assert numbers(found[10]) == numbers(expected[0])
    assert numbers(found[12]) == numbers(expected[2])
    (failed,) = found[11]
    assert (failed.outcome, failed.stop_reason) == (FAILED, "IndexError: beyond the end")
    assert failed.eval_loss is None
    assert "and more of it" in (failed.error or "")


@pytest.mark.parametrize(
    ("guilty", "error", "message"),
    [
        ({1e-3, 2e-3}, ValueError("all alike"), "none of 2 seats could be computed: .*ValueError: all alike"),
        ({1e-3}, RuntimeError("CUDA error: device-side assert"), "CUDA error"),
        ({1e-3}, OSError(errno.ENOSPC, "No space left on device"), "No space left"),
    ],
    ids=["all", "device", "disk"],
)
def test_where_no_evaluation_succeeds_no_trial_is_blamed(
    pack: Pack,
    new_session: Callable[..., Session],
    assign: Callable[..., Assignment],
    run: Callable[..., Reports],
    monkeypatch: pytest.MonkeyPatch,
    guilty: set[float],
    error: Exception,
    message: str,
) -> None:
    sabotaged(pack, monkeypatch, "evaluate", guilty, error)
    with pytest.raises((RuntimeError, OSError), match=f"(?s){message}"):
        run(new_session(2), [assign(i, config) for i, config in enumerate(rates(1e-3, 2e-3))])


def test_a_trial_whose_samples_fail_is_complete_without_them(
    pack: Pack,
    new_session: Callable[..., Session],
    assign: Callable[..., Assignment],
    run: Callable[..., Reports],
    numbers: Callable[[Sequence[SeatReport]], Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    configs = rates(1e-3, 2e-3)
    expected = run(new_session(2), [assign(i, config) for i, config in enumerate(configs)])
    sabotaged(pack, monkeypatch, "generate", {2e-3}, IndexError("beyond the end"))
    session = new_session(2)
    found = run(session, [assign(10 + i, config) for i, config in enumerate(configs)])
    assert numbers(found[10]) == numbers(expected[0])
    assert (found[11][-1].outcome, found[11][-1].eval_loss) == (COMPLETE, expected[1][-1].eval_loss)
    assert found[11][-1].generations == ()
    assert session.take_notes() == ["trial 11: no text could be sampled (IndexError: beyond the end)"]
