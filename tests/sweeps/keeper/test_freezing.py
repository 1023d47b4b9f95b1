"""Trials that are frozen and taken up again, also when keeper, driver and workers are killed around it."""

from __future__ import annotations

import random
import zlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
from optuna.trial import TrialState

from lora_runner.config import TrialConfig
from search_spaces import SearchSpace
from sweeps.config.sections.reliability import ReliabilitySection
from sweeps.keeper.trials.freezer import surplus_text
from sweeps.plan.specs import CheckpointSize
from sweeps.study.curve_gp import decisions
from sweeps.study.curve_gp.curves import Curve
from sweeps.study.curve_gp.decisions import Chance
from sweeps.study.edges.widening import Widening, record_widening
from sweeps.study.lease import DriverProcess
from tests.sweeps.keeper.freezing import (
    PERCENTS,
    FreezingPack,
    Make,
    all_ended,
    checkpointed,
    frozen_in,
    late,
    run_until,
)

# --- freezing -------------------------------------------------------------------------------------


def test_a_trial_that_falls_behind_is_frozen_and_frees_its_seat(freezing: Make, stored: Any) -> None:
    keeper = freezing()
    pack = FreezingPack(keeper, late, seats=4)
    run_until(pack, lambda: bool(frozen_in(keeper, stored)))
    [number, *_] = frozen_in(keeper, stored)
    trial = stored(keeper)[number]
    assert trial.state == TrialState.RUNNING
    assert trial.user_attrs["outcome"] == "frozen"
    assert trial.user_attrs["frozen"] == max(trial.intermediate_values) >= 40
    assert trial.user_attrs["stop_reason"].endswith("likely to win")
    assert number not in [a.number for a in pack.seats.values()]
    assert len(pack.seats) == 4, "its seat is filled in the same reply"
    assert (keeper.folder / f"trials/{number:04d}/checkpoint").exists()
    status = keeper.status()
    assert status.frozen == len(frozen_in(keeper, stored))
    assert number not in [t.number for t in status.running]
    assert f"trial {number}: frozen {trial.user_attrs['stop_reason']}" in status.events


def test_a_sweep_ends_with_every_trial_counted_and_frozen_ones_at_rest(freezing: Make, stored: Any) -> None:
    keeper = freezing()
    pack = FreezingPack(keeper, late, seats=4)
    pack.run()
    trials = stored(keeper)
    assert len(trials) == 16
    left = frozen_in(keeper, stored)
    assert left
    assert all(trials[n].user_attrs["at_rest"] for n in left)
    assert {t.user_attrs["outcome"] for t in trials if t.number not in left} == {"complete"}
    assert {t.state for t in trials if t.number not in left} == {TrialState.COMPLETE}
    assert checkpointed(keeper) == left
    status = keeper.status()
    assert (status.finished, status.frozen, status.unfinished, status.ending) == (16, 0, 0, True)
    assert status.outcomes == {"complete": 16 - len(left), "frozen": len(left)}
    assert not status.has_work
    told = {(r.trial, r.outcome) for r in keeper.report_log.since(0) if r.outcome is not None}
    assert told == {(t.number, "complete") for t in trials if t.number not in left}


def test_more_trials_take_up_what_was_frozen_at_the_end(
    freezing: Make, stored: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed or not: the study alone says that they are frozen, and their checkpoints are there."""
    keeper = freezing()
    FreezingPack(keeper, late, seats=4).run()
    left = frozen_in(keeper, stored)
    again = freezing(trials=18, owner=DriverProcess.current("another run"))  # the first was not closed
    assert again.status().frozen == len(left), "at rest no longer"
    assert checkpointed(again) == left
    chances = decisions.chances

    def likely(space: SearchSpace, curves: Sequence[Curve]) -> dict[int, Chance]:
        return chances(space, curves) | {left[0]: Chance(left[0], 0, 0.9)}

    monkeypatch.setattr(decisions, "chances", likely)
    pack = FreezingPack(again, late, seats=4)
    pack.run()
    trials = stored(again)
    assert pack.resumed[left[0]] >= 40, "from its checkpoint"
    assert trials[left[0]].state == TrialState.COMPLETE
    assert trials[left[0]].user_attrs.get("at_rest") is None
    status = again.status()
    assert (len(trials), status.finished, status.has_work) == (18, 18, False)
    assert checkpointed(again) == frozen_in(again, stored)


def test_a_finished_sweep_that_is_opened_again_leaves_frozen_trials_at_rest(
    freezing: Make, stored: Any
) -> None:
    keeper = freezing()
    FreezingPack(keeper, late, seats=4).run()
    left = frozen_in(keeper, stored)
    keeper.close()
    again = freezing()
    assert again.ask(0, [0, 1]).fleet_done
    assert frozen_in(again, stored) == left
    assert not again.status().has_work


def test_frozen_trials_are_taken_up_from_their_checkpoints_and_complete(freezing: Make, stored: Any) -> None:
    keeper = freezing()
    pack = FreezingPack(keeper, late, seats=4)
    pack.run()
    thawed = [number for number, percent in pack.resumed.items() if percent]
    assert thawed
    complete = [t for t in stored(keeper) if t.state == TrialState.COMPLETE]
    for number in thawed:
        trial = stored(keeper)[number]
        assert trial.user_attrs["attempt"] >= 2
        stays = trial.user_attrs["stays"]
        assert len(stays) == trial.user_attrs["attempt"]
        times = [time for stay in stays for time in stay[2:]][1:]
        known = [time for time in times if time is not None]
        assert known == sorted(known), "one after another, each with the seat that the trial then had"
        assert times.count(None) == (trial.state == TrialState.COMPLETE)
        expected = {p: late(TrialConfig.from_dict(trial.user_attrs["config"]), p) for p in PERCENTS}
        assert trial.intermediate_values == {p: expected[p] for p in trial.intermediate_values}
    assert {t.number for t in complete} & set(thawed)


def test_the_guideline_default_is_never_frozen(freezing: Make, stored: Any) -> None:
    keeper = freezing()
    FreezingPack(keeper, lambda c, p: late(c, p) + (2.0 if c.learning_rate == 2e-4 else 0.0), seats=4).run()
    assert stored(keeper)[0].state == TrialState.COMPLETE


@pytest.mark.parametrize("kept", [0, 2])
def test_frozen_trials_keep_no_more_disk_than_asked_for(freezing: Make, stored: Any, kept: int) -> None:
    """One of rank 8 takes 4 GiB."""
    reliability = ReliabilitySection(frozen_gib=4 * kept + 3.9)
    keeper = freezing(reliability=reliability, checkpoint_size=CheckpointSize(per_rank=2**29))
    pack = FreezingPack(keeper, late, seats=8)
    pack.ask()
    most = 0
    while pack.seats:
        reply = pack.turn()
        frozen = frozen_in(keeper, stored)
        most = max(most, len(frozen))
        assert set(reply.freeze) <= set(frozen)
        running = {a.number for a in pack.seats.values()}
        with_checkpoint = {int(p.parent.name) for p in keeper.folder.glob("trials/*/checkpoint")}
        assert with_checkpoint <= {*frozen, *running}
    assert most == kept
    pruned = [t for t in stored(keeper) if t.state == TrialState.PRUNED]
    assert pruned
    size = "3.9" if kept == 0 else "11.9"
    why = f"was frozen, pruned for good: frozen trials may keep {size} GiB of disk (reliability.frozen_gib)"
    assert all(t.user_attrs["stop_reason"].endswith(f"likely to win; {why}") for t in pruned)
    assert all(t.user_attrs["outcome"] == "pruned" for t in pruned)
    events = keeper.status().events
    assert all(f"trial {t.number}: pruned {t.user_attrs['stop_reason']}" in events for t in pruned)


def test_the_least_likely_to_win_goes_first_and_no_more_go_than_must(
    freezing: Make, stored: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    keeper = freezing(checkpoint_size=CheckpointSize(per_rank=2**29))
    run_until(FreezingPack(keeper, late, seats=8), lambda: len(frozen_in(keeper, stored)) >= 4)
    frozen = frozen_in(keeper, stored)
    order = [frozen[2], frozen[0], *frozen[3:], frozen[1]]
    monkeypatch.setattr(decisions, "least_promising", lambda *_: order)
    for count, gib in ((len(frozen), 4.0 * len(frozen)), (2, 8.0), (1, 4.0)):
        reliability = ReliabilitySection(frozen_gib=gib)
        keeper.opened.freezer.study_spec = replace(keeper.study_spec, reliability=reliability)
        keeper.opened.freezer.give_up_surplus()
        left = frozen_in(keeper, stored)
        assert left == sorted(order[len(order) - count :])
        order = [number for number in order if number in left]


def test_a_bound_lowered_for_a_finished_sweep_is_said_and_applied_when_it_trains_again(
    freezing: Make, stored: Any
) -> None:
    size = CheckpointSize(per_rank=2**29)
    keeper = freezing(checkpoint_size=size)
    FreezingPack(keeper, late, seats=4).run()
    left = frozen_in(keeper, stored)
    assert surplus_text(keeper.study_spec, keeper.study) is None
    low = replace(keeper.study_spec, reliability=ReliabilitySection(frozen_gib=0))
    text = surplus_text(low, keeper.study)
    effect = "reliability.frozen_gib (0) takes effect once `trials` is raised"
    assert text == f"Frozen trials keep {4 * len(left)} GiB; {effect}"
    keeper.close()
    again = freezing(trials=18, reliability=ReliabilitySection(frozen_gib=0), checkpoint_size=size)
    assert left
    assert not frozen_in(again, stored)
    assert not checkpointed(again)


def test_a_store_at_a_url_has_two_slots_for_each_frozen_trial(freezing: Make) -> None:
    size = CheckpointSize(per_rank=2**29, embeddings=2**30)
    spec = freezing(checkpoint_size=size).study_spec
    assert spec.frozen_gib(16) == 9
    stored = replace(spec, reliability=ReliabilitySection(checkpoints="memory://there"))
    assert stored.frozen_gib(16) == 18


@pytest.mark.parametrize("changed", [{"pruner": "none"}, {"sampler": "tpe"}])
def test_another_sampler_or_pruner_in_the_sweep_file_ends_frozen_trials(
    freezing: Make, stored: Any, changed: dict[str, str]
) -> None:
    keeper = freezing()
    run_until(FreezingPack(keeper, late, seats=4), lambda: bool(frozen_in(keeper, stored)))
    frozen = frozen_in(keeper, stored)
    keeper.close()
    again = freezing(**changed)
    assert {stored(again)[n].state for n in frozen} == {TrialState.PRUNED}
    assert all("pruned for good: the pruner is" in stored(again)[n].user_attrs["stop_reason"] for n in frozen)
    assert again.status().frozen == 0
    assert not [n for n in frozen if (again.folder / f"trials/{n:04d}/checkpoint").exists()]


def test_after_the_time_limit_frozen_trials_wait_for_the_next_run(freezing: Make, stored: Any) -> None:
    keeper = freezing(timeout_seconds=3600.0)
    pack = FreezingPack(keeper, late, seats=4)
    run_until(pack, lambda: bool(frozen_in(keeper, stored)))
    keeper._started -= 3601
    pack.run()
    left = frozen_in(keeper, stored)
    assert left
    assert keeper.status().has_work
    keeper.close()
    again = freezing(timeout_seconds=3600.0)
    assert frozen_in(again, stored) == left
    FreezingPack(again, late, seats=4).run()
    assert all_ended(again, stored)


def test_no_trial_is_taken_up_before_its_worker_has_let_go(
    freezing: Make, stored: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The worker may still be writing the checkpoint from which it would resume."""
    keeper = freezing()
    run_until(FreezingPack(keeper, late, seats=4), lambda: bool(frozen_in(keeper, stored)))
    [number, *_] = frozen_in(keeper, stored)
    monkeypatch.setattr(decisions, "thaw", lambda *_, **__: [number])
    assert keeper.opened.freezer.next(has_new=False, busy={0}) is None
    other = keeper.opened.freezer.next(has_new=False, busy={1})
    assert other is not None
    assert other.number == number
    keeper.opened.freezer.has_left(0)
    again = keeper.opened.freezer.next(has_new=False, busy={0})
    assert again is not None
    assert again.number == number


def test_after_a_widening_every_decision_is_made_in_the_wider_space(
    freezing: Make, stored: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    keeper = freezing()
    run_until(FreezingPack(keeper, late, seats=4), lambda: bool(frozen_in(keeper, stored)))
    [number, *_] = frozen_in(keeper, stored)
    space = keeper.study_spec.space
    low, high = space["learning_rate"].bounds()
    moved = Widening(dimension="learning_rate", side="high", before=high, after=2 * high, best=1, finished=8)
    record_widening(keeper.study, moved, space)
    seen = dict[str, tuple[float, float]]()

    def noting(name: str, answer: Any) -> Callable[..., Any]:
        def asked(space: SearchSpace, *_: Any, **__: Any) -> Any:
            seen[name] = space["learning_rate"].bounds()
            return answer

        return asked

    for name, answer in {"thaw": [], "least_promising": [], "chances": {}}.items():
        monkeypatch.setattr(decisions, name, noting(name, answer))
    keeper.opened.freezer.next(has_new=True)
    keeper.opened.freezer.study_spec = replace(
        keeper.study_spec,
        reliability=ReliabilitySection(frozen_gib=0),
        checkpoint_size=CheckpointSize(per_rank=1),
    )
    keeper.opened.freezer.give_up_surplus()
    assert not keeper.study.pruner.prune(keeper.study, stored(keeper)[number])
    assert seen == dict.fromkeys(["thaw", "least_promising", "chances"], (low, 2 * high))


# --- replies that are lost, processes that are killed ---------------------------------------------


def test_a_lost_reply_is_given_again(freezing: Make, stored: Any) -> None:
    keeper = freezing()
    pack = FreezingPack(keeper, late, seats=4)
    pack.ask()
    while True:
        reports, free = pack.reports(), pack.free
        first = keeper.report(0, reports, free, 1.0)
        if first.freeze:
            break
        pack.follow(first)
    again = keeper.report(0, reports, free, 1.0)
    assert again.freeze == first.freeze
    assert not set(again.freeze) & set(again.leave)
    assert stored(keeper)[first.freeze[0]].user_attrs["attempt"] == 1


def test_a_frozen_trial_is_no_interrupted_trial(freezing: Make, stored: Any) -> None:
    keeper = freezing()
    pack = FreezingPack(keeper, late, seats=4)
    run_until(pack, lambda: bool(frozen_in(keeper, stored)))
    frozen = frozen_in(keeper, stored)
    for owner in (keeper.owner, DriverProcess.current("another run")):  # the keeper died; the driver died
        keeper = freezing(owner=owner)
        assert frozen_in(keeper, stored) == frozen
        assert not set(frozen) & set(keeper.opened.retry_queue.numbers)
    given = [p.assignment.number for p in keeper.ask(0, [0, 1, 2, 3]).start]
    assert not set(given) & set(frozen), "interrupted trials come first"


def test_a_report_that_froze_a_trial_only_on_disk_freezes_it_after_a_restart(
    freezing: Make, stored: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    keeper = freezing()
    pack = FreezingPack(keeper, late, seats=4)
    run_until(pack, lambda: bool(frozen_in(keeper, stored)))
    known = frozen_in(keeper, stored)
    while True:  # until a report would freeze another; its transaction fails
        reports, free = pack.reports(), pack.free
        with monkeypatch.context() as patch:
            patch.setattr(keeper._held_lease, "committed", lambda _: None)
            patch.setattr(keeper, "_fill", lambda *_: (_ for _ in ()).throw(RuntimeError("killed")))
            with pytest.raises(RuntimeError, match="killed"):
                keeper.report(0, reports, free, 1.0)
        again = freezing(owner=DriverProcess.current("another run"))
        if new := set(frozen_in(again, stored)) - set(known):
            break
        keeper, pack = again, FreezingPack(again, late, seats=4)
        pack.ask()
    assert not new & set(again.opened.retry_queue.numbers)
    FreezingPack(again, late, seats=4).run()
    assert all_ended(again, stored)


def any_chances(_: SearchSpace, curves: Sequence[Curve]) -> dict[int, Chance]:
    """In place of the model, whose fits take time: trials are frozen and taken up often, without sense."""
    told = sum(len(curve.reports) for curve in curves)
    return {
        curve.number: Chance(
            curve.number, curve.percent, 0.5 * (zlib.crc32(f"{curve.number} {told}".encode()) % 2)
        )
        for curve in curves
        if curve.reports
    }


@pytest.mark.parametrize("seed", range(4))
def test_whatever_is_killed_no_trial_is_lost_and_every_value_is_its_own(
    freezing: Make, stored: Any, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two workers, killed with and without their last reply, with and without the checkpoints it asks for."""
    monkeypatch.setattr("sweeps.study.curve_gp.decisions.chances", any_chances)
    chance = random.Random(seed)
    freezing = partial(freezing, startup_trials=50)
    keeper = freezing(trials=14)
    packs = [FreezingPack(keeper, late, seats=3, worker=w) for w in (0, 1)]
    kills = 0
    for _ in range(400):
        if (status := keeper.status()).ending and not status.has_work:
            break
        what, pack = chance.random(), chance.choice(packs)
        index = packs.index(pack)
        if what < 0.08:  # the keeper dies, before or after a call whose reply is lost
            if pack.seats and chance.random() < 0.5:
                keeper.report(index, pack.reports(), pack.free, 1.0)
                packs[index] = FreezingPack(keeper, late, seats=3, worker=index)
                keeper.rejoin(index)
            keeper = freezing(trials=14, owner=keeper.owner)
            for one in packs:
                one.keeper = keeper
            kills += 1
        elif what < 0.13:  # the driver dies, and with it everything
            keeper = freezing(trials=14, owner=DriverProcess.current(f"run {kills}"))
            packs = [FreezingPack(keeper, late, seats=3, worker=w) for w in (0, 1)]
            kills += 1
        elif what < 0.23:  # a worker dies, after the reply perhaps, and before it has written a checkpoint
            if pack.seats and chance.random() < 0.7:
                reply = keeper.report(index, pack.reports(), pack.free, 1.0)
                if chance.random() < 0.5:
                    pack.follow(reply)
            packs[index] = FreezingPack(keeper, late, seats=3, worker=index)
            keeper.rejoin(index)
            kills += 1
        elif pack.seats:
            pack.turn()
        else:
            pack.ask()
    trials = stored(keeper)
    assert kills > 1
    assert sum(len(t.user_attrs.get("stays", ())) > 1 for t in trials) > 1, "some were taken up again"
    assert len([t for t in trials if t.state != TrialState.FAIL]) == 14
    assert all_ended(keeper, stored)
    for trial in trials:
        config = TrialConfig.from_dict(trial.user_attrs["config"])
        assert trial.intermediate_values == {p: late(config, p) for p in trial.intermediate_values}
        if trial.state == TrialState.COMPLETE:
            assert list(trial.intermediate_values) == list(PERCENTS)
    left = frozen_in(keeper, stored)
    keeper.close()
    assert set(checkpointed(freezing(trials=14))) <= set(left)
