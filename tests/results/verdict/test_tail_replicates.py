"""Runs of the sweep's tail before those of a confirmation: nothing that they have shown is taken back."""

from __future__ import annotations

from collections.abc import Sequence

from results.comparison.arms import Arm, Replicate
from results.comparison.relation import relation
from results.sweep_result import SweepResult, TrialResult
from results.verdict.replicates import Replicates
from results.verdict.verdict import verdict
from search_spaces import DEFAULT_LABEL, Dimension

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
