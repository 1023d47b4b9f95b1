"""Trials on the seats of a session: reports and ends, independent of neighbours."""

from __future__ import annotations

import json
import math
import weakref
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from lora_runner.data import BatchPlan, DataBundle, TokenizedExample, TokenizedSet
from lora_runner.errors import ModelError, TrialConfigError
from lora_runner.pack.pack import MicroBatch, Pack
from lora_runner.pack.seat import Seat, StepStats
from lora_runner.protocol import Assignment, SeatReport, SessionOptions
from lora_runner.running_trial import block_of
from lora_runner.session import Session, report_steps
from tests.lora_runner.configs import CONFIGS
from tests.lora_runner.plain_models import plain_nf4

Reports = dict[int, list[SeatReport]]
HUGE = replace(
    CONFIGS[0], learning_rate=10.0, embedding_learning_rate=10.0, lr_scheduler_type="constant", max_steps=40
)
"""A learning rate with which every model diverges."""


@pytest.mark.gpu
def test_trials_side_by_side_equal_the_same_trials_alone(
    new_session: Callable[..., Session],
    assign: Callable[..., Assignment],
    run: Callable[..., Reports],
    numbers: Callable[..., Any],
) -> None:
    together = new_session(3)
    packed = run(together, [assign(i, config) for i, config in enumerate(CONFIGS)])
    for i, config in enumerate(CONFIGS):
        assert numbers(run(new_session(), [assign(10 + i, config)])[10 + i]) == numbers(packed[i])
    total = sum(reports[-1].num_tokens for reports in packed.values())
    assert together.num_tokens == total > 0


def test_reports_come_at_their_shares_of_the_budget_and_say_what_happened(
    new_session: Callable[..., Session],
    assign: Callable[..., Assignment],
    bundle: DataBundle,
    run: Callable[..., Reports],
) -> None:
    session = new_session(2)
    reports = run(session, [assign(0, CONFIGS[0]), assign(1, CONFIGS[1], attempt=3)])
    assert [(r.percent, r.step) for r in reports[0]] == [(20, 2), (50, 5), (100, 10)]
    assert [(r.percent, r.step) for r in reports[1]] == [(20, 1), (50, 3), (100, 6)]
    assert [r.attempt for r in reports[1]] == [3, 3, 3]
    for trial in reports.values():
        assert [r.outcome for r in trial] == [None, None, "complete"]
        assert [bool(r.generations) for r in trial] == [False, False, True]
        assert all(r.peak_memory_gib > 0 and r.tokens_per_second > 0 for r in trial)
        assert [r.wall_seconds for r in trial] == sorted(r.wall_seconds for r in trial)
    last = reports[0][-1]
    assert last.stop_reason == "used its full budget of 10 steps"
    assert last.eval_loss is not None
    assert last.eval_loss < 0.9 * session.base_eval_loss
    assert len(last.generations) == 2
    assert all(isinstance(text, str) and text for text in last.generations)
    samples = session.base_samples
    assert samples is not None
    decode = session.pack.base.tokenizer.decode
    assert samples.prompts == tuple(decode(list(ids)) for ids in bundle.sample_prompts)
    assert samples.answers == tuple(decode(list(ids)) for ids in bundle.sample_answers)
    assert all(samples.generations)
    assert samples.generations != last.generations  # training changed what is written
    plan = BatchPlan(train=bundle.train, batch_size=4, seed=CONFIGS[0].seed)
    assert last.num_tokens == sum(len(e.input_ids) for i in range(10) for e in plan.examples_at(i))


def test_a_complete_trial_reports_its_loss_on_each_evaluation_record(
    new_session: Callable[..., Session],
    assign: Callable[..., Assignment],
    bundle: DataBundle,
    run: Callable[..., Reports],
) -> None:
    session = new_session()
    reports = run(session, [assign(0, CONFIGS[0])])[0]
    assert [report.record_losses is None for report in reports] == [True, True, False]
    found, loss = reports[-1].record_losses, reports[-1].eval_loss
    assert found is not None
    assert loss is not None
    examples = bundle.eval.examples
    assert found.tokens == tuple(sum(label != -100 for label in e.labels[1:]) for e in examples)
    assert sum(found.nats) / sum(found.tokens) == pytest.approx(loss, rel=1e-6)
    # In the order of the evaluation set, although it is evaluated in that of the lengths.
    seat, device = session.pack.new_seat(CONFIGS[0]), session.pack.base.device
    one_by_one = [session.pack.evaluate([seat], [block_of([e], device)])[0] for e in examples]
    untrained = session.pack.evaluate_records([seat], session.reporter.eval_blocks)[0]
    assert session.reporter.record_losses(untrained).nats == pytest.approx(
        [mean * n for mean, n in zip(one_by_one, found.tokens, strict=True)], rel=1e-5
    )


def test_report_steps_cover_the_end_and_never_meet_twice() -> None:
    assert report_steps(10, (20, 50, 100)) == {2: 20, 5: 50, 10: 100}
    assert report_steps(2, (10, 20, 50, 100)) == {1: 50, 2: 100}
    assert report_steps(1, (20, 100)) == {1: 100}
    for steps in range(1, 60):
        assert report_steps(steps, (1, 33, 66, 100))[steps] == 100


@pytest.mark.parametrize("percents", [(), (20, 50), (50, 20, 100), (0, 100), (50, 50, 100), (50, 100, 110)])
def test_shares_that_do_not_rise_to_the_end_are_refused(percents: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="report_at must rise"):
        SessionOptions(report_at=percents)


def test_a_report_survives_json(
    new_session: Callable[..., Session], assign: Callable[..., Assignment], run: Callable[..., Reports]
) -> None:
    reports = run(new_session(), [assign(0, replace(HUGE, max_steps=12))])[0]
    for report in [*reports, SeatReport.empty(assign(1, CONFIGS[0])).ended("failed", "no seat")]:
        read = SeatReport.from_dict(json.loads(json.dumps(report.to_dict())))
        assert repr(read) == repr(report)  # by text, in which NaN equals itself
    assert reports[-1].signs


def test_freed_seats_are_filled_one_by_one(
    new_session: Callable[..., Session],
    assign: Callable[..., Assignment],
    run: Callable[..., Reports],
    numbers: Callable[..., Any],
) -> None:
    session = new_session(2)
    short = [replace(CONFIGS[2], seed=seed) for seed in (3, 4, 5)]
    reports = run(
        session, [assign(0, CONFIGS[0]), *(assign(1 + i, config) for i, config in enumerate(short))]
    )
    assert [reports[i][-1].outcome for i in range(4)] == ["complete"] * 4
    assert session.free_seats == [0, 1]
    for i, config in enumerate(short):
        assert numbers(reports[1 + i]) == numbers(run(new_session(), [assign(10 + i, config)])[10 + i])


def test_a_trial_stopped_from_outside_frees_its_seat_and_its_memory(
    new_session: Callable[..., Session], assign: Callable[..., Assignment]
) -> None:
    session = new_session(2)
    session.start_trial(0, assign(0, CONFIGS[0]))
    session.start_trial(1, assign(1, CONFIGS[1]))
    session.advance(60)
    assert session.has_trial(0)
    buffers = [weakref.ref(segment) for segment in session.trials[0].seat.segments.values()]
    session.remove(0)
    assert not session.has_trial(0)
    assert session.free_seats == [0]
    # Nothing may reference the weights: the next trial starts before the next forward pass.
    assert [buffer() for buffer in buffers] == [None, None]
    with pytest.raises(KeyError, match="trial 0 has no seat"):
        session.remove(0)


def test_a_seat_is_given_to_one_trial_only(
    new_session: Callable[..., Session], assign: Callable[..., Assignment]
) -> None:
    session = new_session()
    session.start_trial(0, assign(0, CONFIGS[0]))
    with pytest.raises(ValueError, match="seat 0 is taken"):
        session.start_trial(0, assign(1, CONFIGS[1]))
    assert session.has_trial(0)


def test_a_trial_that_cannot_be_seated_leaves_its_seat_free(
    new_session: Callable[..., Session], assign: Callable[..., Assignment]
) -> None:
    session = new_session()
    for change, message in (
        (
            {"embedding_learning_rate": None},
            r"embedding_learning_rate is needed.*model.embed_tokens, lm_head",
        ),
        ({"lr_scheduler_kwargs": {"power": 2}}, "refuses lr_scheduler_kwargs"),
    ):
        with pytest.raises(TrialConfigError, match=message):
            session.start_trial(0, assign(0, replace(CONFIGS[0], **change)))  # type: ignore[arg-type]
        assert session.free_seats == [0]


def test_the_bases_loss_is_the_plain_models_token_weighted_one(
    pack: Pack, new_session: Callable[..., Session], bundle: DataBundle, plain_nll: Callable[..., float]
) -> None:
    plain = plain_nf4(pack.base.spec.model).train()
    expected = plain_nll(plain, bundle.eval)
    for size in (1, 4, 32):
        assert new_session(per_device_eval_batch_size=size).base_eval_loss == pytest.approx(
            expected, rel=1e-6
        )
    means = [plain_nll(plain, TokenizedSet.of([example], source="")) for example in bundle.eval.examples]
    assert sum(means) / len(means) != pytest.approx(expected, rel=1e-4)


def test_a_seat_at_its_start_has_the_bases_loss(
    pack: Pack, new_session: Callable[..., Session], bundle: DataBundle
) -> None:
    session = new_session()
    assert pack.evaluate([pack.new_seat(CONFIGS[0])], session.reporter.eval_blocks) == pytest.approx(
        [session.base_eval_loss]
    )


def test_a_base_without_a_finite_loss_is_refused(
    new_pack: Callable[..., Pack], bundle: DataBundle, options: SessionOptions
) -> None:
    pack = new_pack(train_embeddings=False)
    with torch.no_grad():
        pack.model.get_parameter("model.norm.weight").fill_(torch.nan)
    with pytest.raises(ModelError, match="has evaluation loss nan"):
        Session(pack, bundle, options, num_seats=1)


def test_accumulated_micro_batches_equal_one_large_batch(
    new_session: Callable[..., Session], assign: Callable[..., Assignment], run: Callable[..., Reports]
) -> None:
    whole = replace(CONFIGS[0], per_device_train_batch_size=6, lora_dropout=0.0)
    parts = replace(whole, per_device_train_batch_size=2, gradient_accumulation_steps=3)
    reports = run(new_session(2), [assign(0, whole), assign(1, parts)])
    assert reports[0][-1].num_tokens == reports[1][-1].num_tokens
    for one, three in zip(reports[0], reports[1], strict=True):
        assert three.train_loss == pytest.approx(one.train_loss, rel=1e-4)
        assert three.eval_loss == pytest.approx(one.eval_loss, rel=1e-4)


# --- ends ---------------------------------------------------------------------------------------------


@pytest.mark.gpu
def test_a_diverging_trial_ends_at_once_and_its_neighbour_feels_nothing(
    new_session: Callable[..., Session],
    assign: Callable[..., Assignment],
    run: Callable[..., Reports],
    numbers: Callable[..., Any],
) -> None:
    session = new_session(2)
    reports = run(session, [assign(0, HUGE), assign(1, CONFIGS[1])])
    end = reports[0][-1]
    assert end.outcome == "diverged"
    assert end.step < HUGE.max_steps
    assert end.stop_reason == end.signs[-1].detail
    assert end.signs[-1].sign in ("nan_or_inf", "loss_spike")
    assert end.signs[-1].step == end.step - 1  # a step's loss is read after the next step
    assert numbers(reports[1]) == numbers(run(new_session(), [assign(2, CONFIGS[1])])[2])


def test_a_trial_full_of_nan_ends_when_the_next_step_is_read(
    new_session: Callable[..., Session], assign: Callable[..., Assignment], run: Callable[..., Reports]
) -> None:
    session = new_session(2)
    session.start_trial(0, assign(0, CONFIGS[0]))
    session.start_trial(1, assign(1, CONFIGS[1]))
    session.advance(60)
    sick = session.trials[0].seat
    with torch.no_grad():
        sick.parameters["model.embed_tokens.weight"].fill_(torch.nan)
    step = sick.step
    (report,) = [r for r in session.advance(60) if r.number == 0]
    assert (report.outcome, report.step, report.eval_loss) == ("diverged", step + 2, None)
    assert report.stop_reason == f"loss nan at step {step + 1}"
    assert [(sign.sign, sign.step) for sign in report.signs] == [("nan_or_inf", step + 1)]
    assert math.isnan(report.train_loss)
    assert not session.has_trial(0)
    assert run(session)[1][-1].outcome == "complete"


class PoisonedAtTheEnd(Pack):
    """Breaks a seat's weights with its very last update, as an overflow there would."""

    def train_step(self, batches: Mapping[Seat, MicroBatch]) -> dict[Seat, StepStats]:
        stats = super().train_step(batches)
        for seat in stats:
            if seat.finished and seat.config.seed == CONFIGS[0].seed:
                with torch.no_grad():
                    seat.parameters["lm_head.weight"].fill_(torch.nan)
        return stats


def test_a_trial_whose_last_evaluation_is_nan_is_not_complete(
    new_pack: Callable[..., Pack],
    new_session: Callable[..., Session],
    assign: Callable[..., Assignment],
    run: Callable[..., Reports],
) -> None:
    session = new_session(2, on=new_pack(cls=PoisonedAtTheEnd))
    reports = run(session, [assign(0, CONFIGS[0]), assign(1, CONFIGS[1])])
    end = reports[0][-1]
    assert (end.percent, end.outcome) == (100, "diverged")
    assert end.stop_reason == "evaluation loss nan at step 10"
    assert end.signs[-1].sign == "nan_or_inf"
    assert not (Path(assign(0, CONFIGS[0]).folder) / "adapter").exists()
    assert reports[1][-1].outcome == "complete"
    assert (Path(assign(1, CONFIGS[1]).folder) / "adapter" / "adapter_model.safetensors").is_file()


def test_advance_returns_when_its_time_is_up(
    new_session: Callable[..., Session], assign: Callable[..., Assignment]
) -> None:
    session = new_session()
    assert session.advance(60) == []  # no trial
    session.start_trial(0, assign(0, CONFIGS[0]))
    assert session.advance(0) == []
    assert session.trials[0].seat.step == 0


def test_a_trial_without_prompts_has_no_samples(
    pack: Pack,
    bundle: DataBundle,
    assign: Callable[..., Assignment],
    run: Callable[..., Reports],
    options: SessionOptions,
) -> None:
    session = Session(pack, replace(bundle, sample_prompts=(), sample_answers=()), options, num_seats=1)
    assert session.base_samples is None
    end = run(session, [assign(0, CONFIGS[2])])[0][-1]
    assert (end.outcome, end.generations) == ("complete", ())


def test_a_set_without_a_target_token_is_refused(
    pack: Pack, bundle: DataBundle, options: SessionOptions
) -> None:
    nothing = TokenizedExample(input_ids=[5, 6, 7], labels=[-100] * 3)
    with pytest.raises(ModelError, match="no target token"):
        Session(pack, replace(bundle, eval=TokenizedSet.of([nothing], source="")), options, num_seats=1)
