"""Runs of the sweep's tail before those of a confirmation: nothing that they have shown is taken back."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace

import pytest

from results.comparison.arms import Arm, Replicate, Role
from results.comparison.relation import relation
from results.sweep_result import SweepResult, TrialResult, read_study
from results.verdict.replicates import Replicates
from results.verdict.verdict import verdict
from results.words.words import STRONGER
from search_spaces import DEFAULT_LABEL, Dimension
from search_spaces.dimension import Value
from tests.results.conftest import study
from tests.results.conftest import trial as tried

RATES = {"best": 4e-4, "guideline default": 2e-4}
SEEDS = (900, 17, 523, 4)


def trial(number: int, arm: str, loss: float, **options) -> TrialResult:
    values = {"learning_rate": RATES[arm]}
    return TrialResult(
        number=number, values=values, params=values, eval_loss=loss, outcome="complete", **options
    )


def losses(arm: str) -> Sequence[float]:
    own = (0.0, 0.0004, -0.0003, 0.0001) if arm == "best" else (0.06, 0.0598, 0.0603, 0.0601)
    return [2 + seed % 7 / 100 + added for seed, added in zip(SEEDS, own, strict=True)]


def swept() -> SweepResult:
    runs = [
        trial(2 + 2 * index + offset, arm, losses(arm)[index], seed=seed)
        for index, seed in enumerate(SEEDS)
        for offset, arm in enumerate(RATES)
    ]
    return SweepResult(
        name="t",
        metric="eval_loss",
        trials=[trial(0, "guideline default", 2.06, label=DEFAULT_LABEL), trial(1, "best", 2.0)],
        replicates=runs,
        dimensions={
            "learning_rate": Dimension(
                name="learning_rate", kind="float", low=1e-5, high=2e-3, log=True, default=2e-4
            )
        },
        guidelines=[],
        context={"method": "qlora", "scenario": "general", "max_steps": 200},
    )


def confirmation(num_runs: int, *, rate: float = RATES["best"], num_rows: int = 5) -> Replicates:
    rates = RATES | {"best": rate} | {f"row {index}": 1e-4 / (1 + index) for index in range(num_rows)}
    arms = [
        Arm(
            name=name,
            role="best" if name == "best" else "guideline_default" if name in RATES else "row",
            values={"learning_rate": found},
        )
        for name, found in rates.items()
    ]
    runs = [
        Replicate(arm=name, seed=seed, eval_loss=losses(name)[index] if name in RATES else 2.5)
        for index, seed in enumerate(SEEDS)
        for name in rates
    ]
    return Replicates(arms=arms, runs=runs[:num_runs])


def test_a_confirmation_that_begins_takes_back_nothing_of_the_tail() -> None:
    for num_runs in range(1, 3 * 7):
        found = verdict(swept(), confirmation(num_runs)).replicates
        assert found is not None
        assert relation(found.comparisons["guideline default"]) == "worse", num_runs


def test_the_tail_of_another_best_is_left_out() -> None:
    found = verdict(swept(), confirmation(9, rate=5e-4)).replicates
    assert found is not None
    assert relation(found.comparisons["guideline default"]) == "open"


@pytest.mark.parametrize("seed", range(12))
def test_no_word_of_the_tail_is_lost_in_any_look_of_the_confirmation(seed: int) -> None:
    chance = random.Random(seed)
    cost, noise = chance.choice((0.0, 0.002, 0.02, -0.02, 0.05)), chance.choice((0.0002, 0.002))
    searched = read_study(
        study(
            tried(2.0 * (1 + cost), lr=2e-4, label=DEFAULT_LABEL, rows=("scenario.general",)),
            tried(2.00, lr=4e-4, ratio=0.125, scheduler="cosine"),
            tried(chance.choice((2.009, 2.09)), lr=2e-4, ratio=0.2, scheduler="constant"),
        )
    )
    best, default = searched.best, searched.guideline_default
    assert best is not None
    assert default is not None
    runs = {"best": (best, 0.0), "guideline default": (default, cost)}

    def loss(extra: float, place: int) -> float:
        return 2 * (1 + extra) + place / 50 + chance.gauss(0, 2 * noise)

    tail = [
        replace(of, number=9 + 2 * place, seed=place, eval_loss=loss(extra, place), label="")
        for place in range(4)
        for of, extra in runs.values()
    ]
    searched = replace(searched, replicates=tail)
    others: dict[str, tuple[Role, dict[str, Value], float]] = {
        "learning_rate 2e-4": ("row", {"learning_rate": 2e-4, "embedding_lr_ratio": 0.25}, cost / 2),
        "warmup 0.3": ("contrast", {"warmup_ratio": 0.3}, 0.01),
        "linear": ("row", {"lr_scheduler_type": "linear"}, 0.0),
    }
    arms = [
        Arm(name="best", role="best", values=dict(best.params)),
        Arm(name="guideline default", role="guideline_default", values=dict(default.params)),
        *(Arm(name=n, role=role, values={**best.params, **v}) for n, (role, v, _) in others.items()),
    ]
    costs = {"best": 0.0, "guideline default": cost} | {name: extra for name, (_, _, extra) in others.items()}
    ended = [
        Replicate(
            arm="best" if run.params == best.params else "guideline default",
            seed=run.seed or 0,
            eval_loss=run.eval_loss,
        )
        for run in tail
    ]
    ended += [
        Replicate(arm=name, seed=place, eval_loss=loss(extra, place))
        for place in range(8)
        for name, extra in costs.items()
        if place > 3 or name not in runs
    ]
    words = {row.row.id: row.word for row in verdict(searched, has_model=False).rows}
    assert set(words.values()) != {"not_tested"}
    for count in range(len(tail), len(ended) + 1, 3):
        found = verdict(searched, Replicates(arms=arms, runs=ended[:count]), has_model=False)
        now = {row.row.id: row.word for row in found.rows}
        turned = {
            name: (before, now[name])
            for name, before in words.items()
            if now[name] != before and now[name] not in STRONGER.get(before, ())
        }
        assert turned == {}, count
        words = now
