"""Spaces that hold few configurations: none is trained twice, and a sweep ends when there is no other."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from optuna.trial import TrialState

from search_spaces import space_for
from sweeps.keeper import Keeper

SMALL = {
    "learning_rate": {"value": 2e-4},
    "lr_scheduler_type": {"choices": ["linear", "cosine"]},
    "warmup_ratio": {"low": 0.03, "high": 0.06},  # of 100 steps: 4 to 6 of them; 3 at the very edge
}
NUM_CONFIGS = 8

MakeSmall = Callable[[str], Keeper]


@pytest.fixture
def make_small(tmp_path: Path, ledger: Any, new_database: Callable[[str], str]) -> Iterator[MakeSmall]:
    """`make_small(sampler)`: a keeper of one and the same sweep over the small space."""
    space = space_for(
        scenario="general", model_size=8e9, max_steps=100, train_embeddings=False, overrides=SMALL
    )
    url, made = new_database("study"), list[Keeper]()

    def make(sampler: str) -> Keeper:
        whole = ledger(tmp_path / "run", trials=30, sampler=sampler, pruner="none")
        identity = {"metric": "eval_loss", "space": space.fingerprint()}
        small = replace(whole, space=space, trains_embeddings=False, identity=identity)
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
