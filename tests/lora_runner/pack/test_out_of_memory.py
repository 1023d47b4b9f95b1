"""When memory runs out, the trial that needs most is put back, and no other loses anything."""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch

from lora_runner.config import TrialConfig
from lora_runner.pack.pack import MicroBatch, Pack
from lora_runner.pack.record_sums import Evaluation
from lora_runner.pack.seat import PendingStats, Seat
from lora_runner.protocol import Assignment, SeatReport
from lora_runner.session import Session
from tests.lora_runner.devices import no_cuda

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
    """A pack whose memory is too small for what the test chooses."""

    too_much: Callable[[Sequence[Any]], bool] = staticmethod(lambda seats: False)
    where = "start"

    def train_step(self, batches: Mapping[Seat, MicroBatch]) -> dict[Seat, PendingStats]:
        if self.where in ("start", "update") and self.too_much(list(batches)):
            if self.where == "update":  # gradients have been added to every seat
                self.micro_step(batches)
                self.update([seat for seat in list(batches)[:1] if seat.window_is_full])
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 MiB.\nGPU 0 has no more.")
        return super().train_step(batches)

    def new_seat(self, config: TrialConfig, *, seats_to_come: int = 0) -> Seat:
        if self.where == "place" and self.too_much([config]):
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return super().new_seat(config, seats_to_come=seats_to_come)

    def evaluate_records(self, seats: Sequence[Seat | None], blocks: Sequence[Any]) -> list[Evaluation]:
        if self.where == "evaluate" and self.too_much(seats):
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return super().evaluate_records(seats, blocks)

    def generate(self, seats: Sequence[Seat | None], *arguments: Any) -> list[list[list[int]]]:
        if self.where == "generate" and self.too_much(seats):
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return super().generate(seats, *arguments)


@pytest.fixture(scope="module")
def tight(new_pack: Callable[..., Pack]) -> Tight:
    pack = new_pack(cls=Tight)
    assert isinstance(pack, Tight)
    return pack


LARGE = replace(FIRST, lora_r=64)
LACK = "CUDA out of memory. Tried to allocate 20 MiB."


def beside(limit: int) -> Callable[[Sequence[Any]], bool]:
    """More than `limit` trained parameters on all seats do not fit, but not from the first step on."""
    # Windows are half full by then, and moments are not zero.
    return lambda seats: sum(s.num_trained for s in seats) > limit and max(s.micro_step for s in seats) >= 3


@pytest.mark.gpu
@pytest.mark.parametrize("where", ["start", "update"])
def test_the_largest_trial_is_put_back_and_the_others_lose_nothing(
    new_session: Callable[..., Session],
    assign: Callable[..., Assignment],
    tight: Tight,
    where: str,
    run: Callable[..., Reports],
    numbers: Callable[..., Any],
) -> None:
    tight.where, tight.too_much = where, beside(230_000)
    session = new_session(3, on=tight)
    reports = run(session, [assign(0, FIRST), assign(1, LARGE), assign(2, SECOND)])
    back = reports[1][-1]
    assert back.outcome == "put_back"
    assert not back.is_end
    assert back.stop_reason == f"out of memory: {LACK}; the pack goes on with 2 seats"
    assert (back.eval_loss, back.step) == (None, 3)
    for number, config in ((0, FIRST), (2, SECOND)):
        assert numbers(reports[number]) == numbers(
            run(new_session(), [assign(10 + number, config)])[10 + number]
        )
    # Started again on the smaller pack, it ends with the same results.
    again = replace(assign(1, LARGE, attempt=2), put_back=1)
    assert numbers(run(session, [again])[1]) == numbers(run(new_session(), [assign(11, LARGE)])[11])


class Wrapping:
    """A multimodal model's configuration, with nested sizes."""

    def __init__(self, text: Any) -> None:
        vars(self)["text"] = text

    def get_text_config(self, **_: Any) -> Any:
        return self.text

    def __getattr__(self, name: str) -> Any:
        if name in ("vocab_size", "hidden_size", "num_hidden_layers", "max_position_embeddings"):
            raise AttributeError(name)
        return getattr(vars(self)["text"], name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self.text, name, value)


def test_a_wrapped_language_model_survives_too(
    new_session: Callable[..., Session],
    assign: Callable[..., Assignment],
    tight: Tight,
    run: Callable[..., Reports],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tight.model, "config", Wrapping(tight.model.config))
    tight.where, tight.too_much = "start", beside(230_000)
    reports = run(new_session(3, on=tight), [assign(0, FIRST), assign(1, LARGE), assign(2, SECOND)])
    assert [reports[number][-1].outcome for number in range(3)] == ["complete", "put_back", "complete"]


@pytest.fixture
def no_more_memory() -> Iterator[Callable[[], None]]:
    """A function that limits this process to the GPU memory that it holds."""

    def limit() -> None:
        torch.cuda.synchronize()
        torch.cuda.empty_cache()
        total = torch.cuda.get_device_properties(torch.cuda.current_device()).total_memory
        torch.cuda.set_per_process_memory_fraction(torch.cuda.memory_reserved() / total)

    yield limit
    torch.cuda.set_per_process_memory_fraction(1.0)


@pytest.mark.gpu
@no_cuda
def test_a_gpu_that_is_full_puts_back_the_largest_trial(
    new_session: Callable[..., Session],
    assign: Callable[..., Assignment],
    no_more_memory: Callable[[], None],
    run: Callable[..., Reports],
    numbers: Callable[..., Any],
) -> None:
    session = new_session(3)
    largest = replace(FIRST, lora_r=4096)
    for index, config in enumerate((FIRST, largest, SECOND)):
        session.start_trial(index, assign(index, config))
    no_more_memory()
    reports = run(session)
    assert reports[1][-1].outcome == "put_back"
    assert "out of memory" in (reports[1][-1].stop_reason or "")
    with pytest.raises(torch.OutOfMemoryError):
        session.start_trial(session.free_seats[0], assign(3, replace(FIRST, lora_r=65536)))
    for number, config in ((0, FIRST), (2, SECOND)):
        assert reports[number][-1].outcome == "complete"
        alone = run(new_session(), [assign(10 + number, config)])[10 + number]
        assert numbers(reports[number]) == numbers(alone)


def test_what_the_trial_that_left_had_is_given_back(
    new_session: Callable[..., Session], assign: Callable[..., Assignment], tight: Tight
) -> None:
    tight.where, tight.too_much = "start", beside(230_000)
    session = new_session(3, on=tight)
    for index, config in enumerate((FIRST, LARGE, SECOND)):
        session.start_trial(index, assign(index, config))

    def held() -> int:
        return sum(allocator.size for allocator in set(tight._allocators.values()))

    before = held()
    while not any(report.outcome == "put_back" for report in session.advance(60)):
        assert held() == before
    alive = [segment for trial in session.trials for segment in trial.seat.segments.values()]
    assert held() == sum(segment.size for segment in alive) < before
    for number in (0, 2):
        session.remove(number)


def test_a_pack_takes_fewer_trials_once_memory_has_run_out(
    new_session: Callable[..., Session], assign: Callable[..., Assignment], tight: Tight
) -> None:
    tight.where, tight.too_much = "start", lambda seats: len(seats) > 2
    session = new_session(4, on=tight)
    for index, seed in enumerate((1, 2, 3, 4)):
        session.start_trial(index, assign(index, replace(FIRST, seed=seed)))
    gone = [report for report in session.advance(60) if report.outcome == "put_back"]
    assert (len(gone), session.num_seats, session.free_seats) == (1, 3, [])
    gone += [report for report in session.advance(60) if report.outcome == "put_back"]
    assert (len(gone), session.num_seats, session.free_seats) == (2, 2, [])
    while session.trials:
        session.advance(60)
    # Permanently: no closed seat is free again.
    kept = [index for index in range(4) if index not in {report.number for report in gone}]
    assert (session.num_seats, session.free_seats) == (2, kept)


def test_seats_that_stood_empty_when_memory_ran_out_stay_empty(
    new_session: Callable[..., Session], assign: Callable[..., Assignment], tight: Tight
) -> None:
    """Otherwise the trial would be put beside the same neighbours at once."""
    tight.where, tight.too_much = "start", lambda seats: len(seats) > 1
    session = new_session(4, on=tight)
    session.start_trial(1, assign(0, FIRST))
    session.start_trial(2, assign(1, replace(FIRST, seed=2)))
    (report,) = session.advance(60)[:1]
    assert report.outcome == "put_back"
    assert (session.num_seats, session.free_seats, len(session.trials)) == (1, [], 1)


def test_a_trial_that_was_put_back_before_ends(
    new_session: Callable[..., Session],
    assign: Callable[..., Assignment],
    tight: Tight,
    run: Callable[..., Reports],
) -> None:
    tight.where, tight.too_much = "start", beside(230_000)
    session = new_session(3, on=tight)
    second_chance = replace(assign(1, LARGE, attempt=2), put_back=1)
    end = run(session, [assign(0, FIRST), second_chance, assign(2, SECOND)])[1][-1]
    assert (end.outcome, end.is_end) == ("out_of_memory", True)
    assert end.stop_reason == f"out of memory again: {LACK}; the pack goes on with 2 seats"
    assert session.num_seats == 2


def test_a_trial_that_is_alone_ends_at_once_and_takes_no_seat_with_it(
    new_session: Callable[..., Session],
    assign: Callable[..., Assignment],
    tight: Tight,
    run: Callable[..., Reports],
) -> None:
    tight.where, tight.too_much = "start", lambda seats: True
    session = new_session(2, on=tight)
    (report,) = run(session, [assign(0, FIRST)])[0]
    assert (report.outcome, report.percent, report.step) == ("out_of_memory", 0, 0)
    assert report.stop_reason == f"out of memory: {LACK}"
    assert math.isnan(report.train_loss)
    assert session.free_seats == [0, 1]


def test_a_trial_that_found_no_room_at_its_seat_is_put_back_too(
    new_session: Callable[..., Session], assign: Callable[..., Assignment], tight: Tight
) -> None:
    tight.where, tight.too_much = "place", lambda seats: seats[0].lora_r == 64
    session = new_session(3, on=tight)
    waiting = assign(1, LARGE)
    with pytest.raises(torch.OutOfMemoryError):
        session.start_trial(0, waiting)
    alone = session.report_out_of_memory(waiting, SeatReport.empty(waiting), "no more", alone=True)
    assert (alone.outcome, alone.stop_reason) == ("out_of_memory", "out of memory: no more")
    assert session.free_seats == [0, 1, 2]
    session.start_trial(0, assign(0, FIRST))
    with pytest.raises(torch.OutOfMemoryError):
        session.start_trial(1, waiting)
    back = session.report_out_of_memory(waiting, SeatReport.empty(waiting), "no more", alone=False)
    assert (back.outcome, back.number, back.attempt) == ("put_back", 1, 1)
    assert (session.num_seats, session.free_seats) == (1, [])
    assert session.has_trial(0)


def test_nothing_holds_the_memory_of_a_trial_when_it_is_to_be_freed(
    new_session: Callable[..., Session],
    assign: Callable[..., Assignment],
    tight: Tight,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tight.where, tight.too_much = "update", beside(230_000)
    session = new_session(3, on=tight)
    for index, config in enumerate((FIRST, LARGE, SECOND)):
        session.start_trial(index, assign(index, config))
    seats = [weakref.ref(trial.seat) for trial in session.trials]
    buffers = [weakref.ref(segment) for trial in session.trials for segment in trial.seat.segments.values()]
    large = [seats[1], *buffers[2:4]]
    held: list[Any] = []
    monkeypatch.setattr(
        "lora_runner.session.free_memory",
        lambda: held.append([reference() is not None for reference in large]),
    )
    while not held:
        session.advance(60)
    assert all(alive == [False, False, False] for alive in held)


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


def test_memory_for_trials_to_come_is_given_up_before_a_trial(
    new_session: Callable[..., Session],
    assign: Callable[..., Assignment],
    tight: Tight,
    run: Callable[..., Reports],
    numbers: Callable[..., Any],
) -> None:
    """Here memory is too small only while it is kept for the seats that are still free."""
    allocators = set(tight._allocators.values())
    for where in ("start", "update"):
        tight.release_memory()
        session = new_session(4, on=tight)
        tight.where, tight.too_much = where, lambda seats: any(each.has_spare for each in allocators)
        reports = run(session, [assign(0, FIRST), assign(1, SECOND)])
        assert [reports[number][-1].outcome for number in range(2)] == ["complete", "complete"]
        assert session.num_seats == 4
        tight.too_much = lambda seats: False
        for number, config in ((0, FIRST), (1, SECOND)):
            assert numbers(reports[number]) == numbers(
                run(new_session(), [assign(10 + number, config)])[10 + number]
            )


class Capturing(Pack):
    """A pack that captures a pass in every step, and runs out of memory where `too_much` says so."""

    num_captured, reason = 0, ""
    too_much: Callable[[int], bool] = staticmethod(lambda step: False)
    num_steps = num_refused = num_dropped = 0

    def captures(self) -> tuple[int, str]:
        return self.num_captured, self.reason

    def drop_captured(self) -> bool:
        there_were, self.num_captured = self.num_captured > 0, 0
        self.num_dropped += there_were
        return there_were

    def stop_capturing(self, reason: str) -> bool:
        self.reason = reason
        return self.drop_captured()

    def resume_capturing(self) -> None:
        self.reason = ""

    def micro_step(self, batches: Any) -> None:
        self.num_captured = int(not self.reason)
        self.num_steps += 1
        if self.num_captured and self.too_much(self.num_steps):
            self.refuse()
        super().micro_step(batches)

    def refuse(self) -> None:
        self.num_refused += 1
        raise torch.OutOfMemoryError("CUDA out of memory.")

    def _evaluate(self, seats: Sequence[Seat | None], blocks: Sequence[Any]) -> list[Evaluation]:
        if self.num_captured:
            self.refuse()
        assert self.num_refused == 0 or self.reason  # once more, with the least memory
        return super()._evaluate(seats, blocks)


def test_captured_passes_are_given_up_before_a_trial(
    new_pack: Callable[..., Pack],
    new_session: Callable[..., Session],
    assign: Callable[..., Assignment],
    run: Callable[..., Reports],
    numbers: Callable[..., Any],
) -> None:
    pack = new_pack(cls=Capturing)
    assert isinstance(pack, Capturing)
    pack.too_much = lambda step: True
    session = new_session(on=pack)
    found = run(session, [assign(0, SECOND)])[0]
    assert (pack.num_refused, pack.num_dropped) == (2, 2)  # the first time, they are captured again
    assert session.take_notes() == [
        "passes are no longer launched as graphs: memory ran out beside captured passes"
    ]
    assert numbers(found) == numbers(run(new_session(), [assign(10, SECOND)])[10])
    assert session.take_notes() == []


@pytest.mark.parametrize(("between", "goes_on"), [(1000, True), (999, False)])
def test_captured_passes_that_do_not_fit_once_in_a_while_are_captured_again(
    new_pack: Callable[..., Pack], monkeypatch: pytest.MonkeyPatch, between: int, goes_on: bool
) -> None:
    """Neither a seat nor `release_memory` between measurements ends it, nor a step that ran out long ago."""
    pack = new_pack(cls=Capturing)
    assert isinstance(pack, Capturing)
    monkeypatch.setattr(Pack, "micro_step", lambda self, batches: None)  # this is about memory alone
    pack.too_much = lambda step: step in (3, 3 + between + 1)
    for _ in range(2):
        pack.train_step({})
    pack.release_memory()
    with pytest.raises(torch.OutOfMemoryError):
        pack.train_step({})
    assert pack.release_memory()
    assert not pack.reason
    for _ in range(between):
        pack.train_step({})
    with pytest.raises(torch.OutOfMemoryError):
        pack.train_step({})
    assert pack.release_memory()
    assert pack.reason == ("" if goes_on else "memory ran out beside captured passes")


def test_a_seat_or_an_evaluation_beside_captured_passes_costs_them_once(
    new_pack: Callable[..., Pack], new_session: Callable[..., Session], monkeypatch: pytest.MonkeyPatch
) -> None:
    pack = new_pack(cls=Capturing)
    assert isinstance(pack, Capturing)
    blocks = new_session(on=pack).reporter.eval_blocks
    own = Seat.__init__

    def new(*arguments: Any, **options: Any) -> None:
        if pack.num_captured:
            pack.refuse()
        own(*arguments, **options)

    monkeypatch.setattr(Seat, "__init__", new)
    monkeypatch.setattr(Pack, "micro_step", lambda self, batches: None)  # this is about memory alone
    pack.train_step({})
    seat = pack.new_seat(FIRST)
    assert (pack.num_refused, pack.captures()) == (1, (0, ""))
    pack.train_step({})
    pack.evaluate([seat], blocks)
    assert (pack.num_refused, pack.captures()) == (2, (0, ""))


class Sparing(Pack):
    """A pack that evaluates and answers only when no memory is kept for seats to come."""

    num_refused = 0

    def _refuse(self) -> None:
        if any(allocator.has_spare for allocator in self._allocators.values()):
            self.num_refused += 1
            raise torch.OutOfMemoryError("CUDA out of memory.")

    def _evaluate(self, seats: Sequence[Seat | None], blocks: Sequence[Any]) -> list[Evaluation]:
        self._refuse()
        return super()._evaluate(seats, blocks)

    def _log_probabilities(self, seat: Seat | None, block: Any) -> tuple[torch.Tensor, torch.Tensor]:
        self._refuse()
        return super()._log_probabilities(seat, block)


def test_an_evaluation_gets_the_memory_kept_for_seats_to_come(
    new_pack: Callable[..., Pack], new_session: Callable[..., Session]
) -> None:
    pack = new_pack(cls=Sparing)
    assert isinstance(pack, Sparing)
    blocks = new_session(on=pack).reporter.eval_blocks
    expected = pack.evaluate([pack.new_seat(FIRST)], blocks)
    pack.release_memory()  # of that seat
    seat = pack.new_seat(FIRST, seats_to_come=3)
    assert pack.evaluate([seat], blocks) == expected
    assert pack.num_refused == 1
    another = pack.new_seat(FIRST, seats_to_come=3)
    pack.log_probabilities(another, blocks[0])
    assert pack.num_refused == 2
