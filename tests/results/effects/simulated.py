"""Sweeps whose loss is known everywhere: flat below the best rate, a cliff above it, trials near the best."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from results.sweep_result import SweepResult, TrialResult
from search_spaces import Dimension
from search_spaces.dimension import Value

SCHEDULERS = ("linear", "constant", "cosine")
STEPS = 200
SPACE = {
    "learning_rate": Dimension(
        name="learning_rate", kind="float", low=5e-5, high=5e-3, log=True, default=2e-4
    ),
    "embedding_lr_ratio": Dimension(
        name="embedding_lr_ratio", kind="float", low=0.01, high=1.0, log=True, default=0.25
    ),
    "lr_scheduler_type": Dimension(
        name="lr_scheduler_type", kind="categorical", choices=SCHEDULERS, default="linear"
    ),
    "warmup_ratio": Dimension(
        name="warmup_ratio",
        kind="float",
        low=0.0,
        high=0.5,
        default=0.1,
        active_when=("lr_scheduler_type", ("linear", "cosine")),
    ),
}
Values = dict[str, Value]


@dataclass(frozen=True, kw_only=True)
class Simulated:
    """A sweep and its true loss."""

    sweep: SweepResult
    truth: Callable[[Values], float]


def simulate(seed: int, num_finished: int, *, follows_mean_rate: bool) -> Simulated:
    """The default, one change from it at a time, then trials near the best ones; the worse ones are pruned.

    The best rate is one of the mean over the run or of the peak, and shifts a little with the schedule. Noise
    has heavy tails and grows with the loss.
    """
    rng = np.random.default_rng(seed)
    best_rate, cliff, left = rng.uniform(-3.6, -2.8), rng.uniform(4, 15), rng.uniform(0.1, 0.5)
    shift = dict(zip(SCHEDULERS, (0.0, *rng.uniform(-0.1, 0.1, 2)), strict=True))
    offset = dict(zip(SCHEDULERS, (0.0, *rng.normal(0, 0.01, 2)), strict=True))
    of_warmup, of_ratio, best_ratio = rng.normal(0, 0.02), rng.uniform(0, 0.03), rng.uniform(-1.5, -0.2)
    noise = rng.choice([0.001, 0.004, 0.01])

    def truth(values: Values) -> float:
        name, warmup = str(values["lr_scheduler_type"]), float(values.get("warmup_ratio", 0.0))
        rate = np.log10(float(values["learning_rate"]))
        if follows_mean_rate:
            rate += 0.3 if name == "constant" else np.log10(1 - 0.5 * warmup)
        beyond = rate - best_rate - shift[name]
        loss = 3 + left * max(-beyond, 0) ** 1.5 + 0.05 * np.expm1(min(cliff * max(beyond, 0), 3.0))
        of_embedding = of_ratio * (np.log10(float(values["embedding_lr_ratio"])) - best_ratio) ** 2
        return float(loss + offset[name] + of_warmup * warmup + of_embedding)

    drawn: list[tuple[Values, float]] = []
    for number in range(round(2.2 * num_finished)):
        values = _first(number) or _next(rng, drawn)
        exact = truth(values)
        drawn.append((values, exact + 0.7 * noise * (1 + 3 * max(exact - 3, 0)) * rng.standard_t(4)))
    kept = sorted(range(1, len(drawn)), key=lambda number: drawn[number][1])[: num_finished - 1]
    trials = [
        TrialResult(
            number=number,
            values=values | {"max_steps": STEPS},
            eval_loss=loss if number in (0, *kept) else None,
            outcome="complete" if number in (0, *kept) else "pruned",
        )
        for number, (values, loss) in enumerate(drawn)
    ]
    sweep = SweepResult(
        name="simulated", metric="eval_loss", trials=trials, dimensions=SPACE, guidelines=(), context={}
    )
    return Simulated(sweep=sweep, truth=truth)


def _first(number: int) -> Values | None:
    default: Values = {
        "learning_rate": 2e-4, "embedding_lr_ratio": 0.25, "lr_scheduler_type": "linear", "warmup_ratio": 0.1
    }  # fmt: skip
    changes: list[Values] = [
        {},
        {"learning_rate": 1e-4},
        {"lr_scheduler_type": "constant"},
        {"warmup_ratio": 0.02},
        {"embedding_lr_ratio": 0.06},
    ]
    return _valid(default | changes[number]) if number < len(changes) else None


def _next(rng: np.random.Generator, drawn: list[tuple[Values, float]]) -> Values:
    values: Values = {
        "learning_rate": 10 ** rng.uniform(-4.3, -2.3),
        "embedding_lr_ratio": 10 ** rng.uniform(-2, 0),
        "lr_scheduler_type": str(rng.choice(SCHEDULERS)),
        "warmup_ratio": rng.uniform(0, 0.5),
    }
    if rng.random() < 0.7:
        near = sorted(drawn, key=lambda pair: pair[1])[rng.integers(3)][0]
        for name, width in (("learning_rate", 0.24), ("embedding_lr_ratio", 0.3)):
            low, high = SPACE[name].bounds()
            values[name] = float(np.clip(float(near[name]) * 10 ** rng.normal(0, width), low, high))
        if rng.random() < 0.7:
            values["lr_scheduler_type"] = near["lr_scheduler_type"]
        if "warmup_ratio" in near:
            values["warmup_ratio"] = float(np.clip(float(near["warmup_ratio"]) + rng.normal(0, 0.1), 0, 0.5))
    return _valid(values)


def _valid(values: Values) -> Values:
    if values["lr_scheduler_type"] == "constant":
        values.pop("warmup_ratio", None)
    return values
