"""Prefetched trials, and spaces with few configurations."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from optuna.trial import TrialState

from lora_runner.config import TrialConfig
from search_spaces import space_for
from sweeps.keeper.keeper import Keeper

Make = Callable[..., Keeper]
SMALL = {
    "learning_rate": {"value": 2e-4},
    "lr_scheduler_type": {"choices": ["linear", "cosine"]},
    "warmup_ratio": {"low": 0.03, "high": 0.06},  # of 100 steps: 4 to 6 of them; 3 at the very edge
}
NUM_CONFIGS = 8

MakeSmall = Callable[[str], Keeper]


# --- spaces that hold few configurations ----------------------------------------------------------


@pytest.fixture
def make_small(tmp_path: Path, study_spec: Any, new_database: Callable[[str], str]) -> Iterator[MakeSmall]:
    """`make_small(sampler)`: a keeper of the same sweep over the small space."""
    space = space_for(
        scenario="general", model_size=8e9, max_steps=100, train_embeddings=False, overrides=SMALL
    )
    url, made = new_database("study"), list[Keeper]()

    def make(sampler: str) -> Keeper:
        whole = study_spec(tmp_path / "run", trials=30, sampler=sampler, pruner="none")
        identity = {"metric": "eval_loss", "space": space.fingerprint()}
        small = replace(whole, space=space, identity=identity)
        made.append(Keeper(small, url))
        return made[-1]

    yield make
    for keeper in made:
        keeper._storage.close()


@pytest.mark.parametrize("sampler", ["random", "tpe", "cmaes"])
def test_a_small_space_is_tried_once_and_then_the_sweep_ends(
    make_small: MakeSmall, pack: Any, stored: Any, sampler: str
) -> None:
    keeper = make_small(sampler)
    pack(keeper, seats=3).run()
    trials = stored(keeper)
    assert {t.state for t in trials} == {TrialState.COMPLETE}
    configs = [json.dumps(t.user_attrs["config"], sort_keys=True) for t in trials]
    assert len(set(configs)) == len(configs)
    assert 6 <= len(configs) <= NUM_CONFIGS
    assert any("the space holds no more" in event for event in keeper.status().events)
    keeper.close()
    # A new keeper need not find out again.
    again = make_small(sampler)
    assert again.rejoin(0).stop
    assert stored(again) == trials


def test_where_one_sampler_finds_nothing_new_another_may(
    make_small: MakeSmall, pack: Any, stored: Any
) -> None:
    keeper = make_small("tpe")
    simulated = pack(keeper, seats=2)
    simulated.ask()
    simulated.turn()
    keeper.study.set_user_attr("exhausted", "tpe")
    keeper.close()
    assert not make_small("random").rejoin(0).stop


# --- prefetching ----------------------------------------------------------------------------------


def ahead(trials: list[Any]) -> list[int]:
    """Numbers of the prefetched trials."""
    return [t.number for t in trials if t.state == TrialState.RUNNING and "attempt" not in t.user_attrs]


def test_a_freed_seat_finds_its_next_trial_drawn(
    make_keeper: Make, report: Any, stored: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    keeper = make_keeper(trials=6, startup_trials=1)
    (placed,) = keeper.ask(0, [0]).start
    keeper.prefetch(0)
    spare = stored(keeper)[1]
    assert ahead(stored(keeper)) == [1]
    assert spare.params.keys() >= {"learning_rate"}
    config = json.loads((keeper.folder / spare.user_attrs["folder"] / "config.json").read_text())
    assert config["config_hash"] == spare.user_attrs["config_hash"]
    # Nobody works on it, and whoever looks is not told otherwise.
    assert [trial.number for trial in keeper.status().running] == [0]
    assert keeper.status().states["RUNNING"] == 1
    keeper.prefetch(0)
    assert ahead(stored(keeper)) == [1]

    monkeypatch.setattr(keeper.opened.source, "draw", lambda: pytest.fail("drawn while a seat waits"))
    reply = keeper.report(0, [report(placed.assignment, 100, 2.0, "complete")], [0], 1.0)
    assert [(p.assignment.number, p.assignment.attempt) for p in reply.start] == [(1, 1)]
    assert reply.start[0].assignment.config == TrialConfig.from_dict(spare.user_attrs["config"])


def test_one_trial_lies_ready_for_every_worker_and_none_beyond_the_target(
    make_keeper: Make, stored: Any
) -> None:
    keeper = make_keeper(trials=7, sampler="random")
    keeper.prefetch(0, 2)  # both seats, while the base loads
    keeper.prefetch(1, 2)
    assert ahead(stored(keeper)) == [0, 1, 2, 3]
    assert [p.assignment.number for p in keeper.ask(0, [0, 1]).start] == [0, 1]
    assert [p.assignment.number for p in keeper.ask(1, [0, 1]).start] == [2, 3]
    keeper.prefetch(0)
    assert ahead(stored(keeper)) == [4, 5, 6]  # worker 1 has not said yet that it needs one only
    keeper.prefetch(1)
    keeper.prefetch(0, 50)
    assert ahead(stored(keeper)) == [4, 5, 6]
    assert sum(t.state != TrialState.WAITING for t in stored(keeper)) == 7


class Killed(Exception):
    """The keeper's process is gone."""


class Mortal:
    """A keeper that counts its calls and can be made to die after one of them, before it replies."""

    def __init__(self, keeper: Keeper, dies_after: int | None = None) -> None:
        self.keeper, self.study_spec, self.dies_after, self.calls = keeper, keeper.study_spec, dies_after, 0

    def __getattr__(self, name: str) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            answer = getattr(self.keeper, name)(*arguments)
            self.calls += 1
            if self.calls == self.dies_after:
                raise Killed
            return answer

        return call


@pytest.mark.parametrize("seats", [1, 3])
@pytest.mark.parametrize("options", [{"startup_trials": 2}, {"sampler": "grid"}])
def test_wherever_a_kill_finds_a_trial_drawn_ahead_it_is_neither_lost_nor_there_twice(
    make_keeper: Make, pack: Any, stored: Any, options: dict[str, Any], seats: int
) -> None:
    """The keeper is dropped after each of its calls, also between a report and the following draw."""
    options |= {"trials": 5, "report_at": (50, 100), "pruner": "none"}
    whole = Mortal(make_keeper(at="whole", **options))
    pack(whole, seats=seats).run()
    expected = [(t.number, t.params) for t in stored(whole.keeper) if t.state != TrialState.WAITING]
    assert len(expected) == 5
    assert len({json.dumps(params, sort_keys=True) for _, params in expected}) == 5
    for dies_after in range(1, whole.calls):
        at = f"dies{dies_after}"
        with pytest.raises(Killed):
            pack(Mortal(make_keeper(at=at, **options), dies_after), seats=seats).run()
        after = make_keeper(at=at, **options)
        assert ahead(stored(after)) == []
        pack(after, seats=seats).run()
        trials = [t for t in stored(after) if t.state != TrialState.WAITING]
        assert [t.state.is_finished() for t in trials] == [True] * 5, dies_after
        if seats == 1 or options.get("sampler") == "grid":
            # With more seats, what ends first after a kill is not what would have without, as ever.
            assert [(t.number, t.params) for t in trials] == expected, dies_after


@pytest.mark.parametrize("how", ["stop", "timeout"])
def test_a_trial_drawn_ahead_and_never_used_runs_on_nowhere_and_is_drawn_again_as_it_was(
    make_keeper: Make, pack: Any, stored: Any, how: str
) -> None:
    keeper = make_keeper(trials=4, pruner="none", timeout_seconds=3600)
    simulated = pack(keeper, seats=2)
    simulated.ask()
    assert ahead(stored(keeper)) == [2]
    params = stored(keeper)[2].params
    if how == "stop":
        keeper.request_stop()
    else:
        keeper._started -= 3601
    simulated.run()
    keeper.prefetch(0)
    assert [t.state for t in stored(keeper)[2:]] == [TrialState.WAITING] * (len(stored(keeper)) - 2)
    assert ("RUNNING" in keeper.status().states) == (how == "stop")

    again = make_keeper(trials=4, pruner="none")
    pack(again, seats=2).run()
    assert [t.state for t in stored(again)] == [TrialState.COMPLETE] * 4
    assert stored(again)[2].params == params


def test_a_trial_drawn_ahead_does_not_take_a_sweep_beyond_a_lower_target(
    make_keeper: Make, pack: Any, stored: Any
) -> None:
    first = make_keeper(trials=8, sampler="random")
    first.ask(0, [0, 1])
    first.prefetch(0)
    assert ahead(stored(first)) == [2]
    fewer = make_keeper(trials=2, sampler="random")
    pack(fewer, seats=3).run()
    assert [t.number for t in stored(fewer) if t.state != TrialState.WAITING] == [0, 1]


def test_a_draw_that_fails_leaves_nothing_behind(
    make_keeper: Make, stored: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    keeper = make_keeper(trials=2, sampler="random")
    keeper.ask(0, [0])
    before, status = stored(keeper), keeper.status()
    with monkeypatch.context() as broken:
        broken.setattr(
            "sweeps.keeper.sources.trial_source.atomic_write_json",
            lambda *_: (_ for _ in ()).throw(OSError("full")),
        )
        with pytest.raises(OSError, match="full"):
            keeper.prefetch(0)
    assert stored(keeper) == before
    assert keeper.status().states == status.states
    keeper.prefetch(0)
    assert ahead(stored(keeper)) == [1]
