"""The arm with one learning rate for LoRA and embeddings, which tests the rows that keep the two apart.

To be fair to it, the rate is tuned first: a few rates, one run each, in a study of their own.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

import optuna
from optuna.trial import TrialState

from files_and_text.numbers import number, six_digits
from results.comparison.arms import Arm
from results.stored_trials import full_budget_loss
from results.sweep_result import SweepResult
from results.verdict.decide import SEPARATE_RATE_ROWS
from results.verdict.row_values import is_close
from sweeps.plan.replicate_plan import ReplicatePlan

NUM_RATES = 4
MIN_SPAN = 4.0
"""Least factor between the lowest and the highest rate that is tried."""


def rates_to_try(sweep: SweepResult) -> tuple[Arm, ...]:
    """Candidates for one rate, everything else as in the best trial; empty when it has no two rates, or one
    for all itself.

    Evenly spaced (in log) from the lower of the best's two rates to the higher, because the best common rate
    lies between them when the loss is a bowl in each.
    """
    best = sweep.best
    if best is None or "embedding_lr_ratio" not in best.params:
        return ()
    if is_close(best.params["embedding_lr_ratio"], 1.0):
        return ()
    main = float(best.params["learning_rate"])
    low, high = sorted((main, main * float(best.params["embedding_lr_ratio"])))
    if high / low < MIN_SPAN:
        middle = math.sqrt(low * high)
        low, high = middle / math.sqrt(MIN_SPAN), middle * math.sqrt(MIN_SPAN)
    step = (high / low) ** (1 / (NUM_RATES - 1))
    rates = [six_digits(low * step**index) for index in range(NUM_RATES)]
    return tuple(
        Arm(
            name=f"one rate {number(rate)}",
            role="one_rate",
            values={**best.params, "learning_rate": rate, "embedding_lr_ratio": 1.0},
        )
        for rate in rates
    )


def pick_rate(candidates: tuple[Arm, ...], losses: Mapping[str, float]) -> Arm | None:
    """The candidate with the lowest loss as the arm `one rate`; None when none finished."""
    finished = [arm for arm in candidates if arm.name in losses]
    if not finished:
        return None
    return as_arm(min(finished, key=lambda arm: losses[arm.name]))


def as_arm(candidate: Arm) -> Arm:
    """The candidate with the rows that it tests."""
    return replace(candidate, rows=tuple(sorted(SEPARATE_RATE_ROWS)))


def tuned_rate(study: optuna.Study, plan: ReplicatePlan) -> tuple[Arm | None, str]:
    """The best of the rates that were tried in `study`, and a sentence about it."""
    losses = {
        str(trial.user_attrs["arm"]): loss
        for trial in study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        if (loss := full_budget_loss(trial)) is not None
    }
    rates = ", ".join(number(float(arm.values["learning_rate"])) for arm in plan.arms)
    chosen = pick_rate(plan.arms, losses)
    if chosen is None:
        return None, f"One rate for LoRA and embeddings was left out: no run finished at {rates}."
    index = [arm.name for arm in plan.arms].index(chosen.name)
    edge = ", at the edge of those tried" if index in (0, len(plan.arms) - 1) else ""
    rate = number(float(chosen.values["learning_rate"]))
    return chosen, (
        f"One rate for LoRA and embeddings was tried at {rates}, one run each, everything else as in the "
        f"best trial; {rate} was best{edge}."
    )
