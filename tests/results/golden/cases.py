"""Small studies, each with the guideline rows that it has most to say about."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import optuna

from search_spaces import load_guidelines
from tests.results.confirm_studies import ARMS, arm, confirm
from tests.results.conftest import study, trial

DEFAULT = "guideline default"
RATES = ("scenario.general", "size.7-8b", "boundary.too_high", "boundary.too_low")
STABILITY = ("stability.nan", "stability.spike", "stability.slow", "stability.many_epochs")
OTHERS = (
    "method.operators",
    "scheduler.short",
    "warmup.share_of_steps",
    "warmup.min_steps",
    "embedding.default",
    "embedding.ratio",
)
SEPARATE = ("boundary.same_rate", "embedding.when_unfrozen")
METRIC = {"name": "exact_match", "direction": "maximize", "objective": True, "num_prompts": 40}

Case = tuple[optuna.Study, optuna.Study | None]


def _rows(*names: str) -> list[dict[str, Any]]:
    return [row.to_dict() for row in load_guidelines().values() if row.id in names]


def _unfinished() -> Case:
    return (
        study(
            trial(
                outcome="pruned", rows=("scenario.general",), label=DEFAULT, reports={40: 1.5}, reason="late."
            ),
            trial(1.0, lr=3e-4, attrs={"num_steps": 10}),
            trial(2.0, lr=8e-4),
            trial(2.3, lr=1e-3, signs=("loss_spike",)),
            trial(outcome="diverged", lr=1.8e-3, signs=("nan_or_inf", "loss_spike"), reports={20: 9.0}),
            trial(outcome="out_of_memory", lr=5e-4, reason="no memory for a step"),
            trial(outcome="running", lr=1e-4, rows=("scenario.general",), reports={20: 1.2}),
            guidelines=_rows(*RATES, *STABILITY, *OTHERS, "scenario.instruction", "size.70b", "method.full"),
            name="unfinished",
        ),
        None,
    )


def _constant() -> Case:
    """The best has no warmup and lies at an end; the sweep is larger, longer and not in 4 bits."""
    return (
        study(
            trial(2.0, lr=1.9e-3, scheduler="constant"),
            trial(2.2, lr=2e-4, rows=("size.70b",), label="guideline default, moved into the given ranges"),
            trial(2.3, lr=1e-5, ratio=1.0, signs=("loss_spike",)),
            context={
                "model_size": 70e9,
                "max_steps": 20000,
                "quantization": "bf16",
                "data_account": {"warnings": ["2 records were cut"]},
                "adapters": ["on 14 linear layers", "none on 2 linear layers"],
            },
            base=1.9,
            guidelines=_rows(*RATES, *OTHERS, "size.70b", "stability.spike", "scheduler.long"),
            name="constant",
        ),
        None,
    )


def _no_best() -> Case:
    return (
        study(
            trial(outcome="failed", reason="a | <b>\nc"),
            trial(outcome="pruned", rows=("scenario.general",), reports={40: 2.0}),
            guidelines=_rows("scenario.general", "boundary.too_high", "warmup.min_steps", "stability.nan"),
            base=None,
            name="no best",
        ),
        None,
    )


def _sweep(name: str, *, rows: tuple[str, ...], context: dict[str, Any] | None = None) -> optuna.Study:
    def measured(loss: float, metric: float) -> dict[str, Any]:
        return {"metric": metric, "eval_loss": loss} if context else {}

    return study(
        trial(2.10, rows=("scenario.general",), label=DEFAULT, attrs=measured(2.1, 0.3)),
        trial(2.00, lr=4e-4, ratio=0.125, scheduler="cosine", attrs=measured(2.0, 0.45)),
        trial(2.005, lr=3e-4, ratio=0.125, scheduler="cosine", attrs=measured(2.005, 0.525)),
        trial(2.40, lr=1.5e-3, scheduler="cosine", attrs=measured(2.4, 0.05)),
        guidelines=_rows(*rows),
        context=context,
        name=name,
    )


def _confirmed() -> Case:
    return _sweep("confirmed", rows=(*RATES, *OTHERS, *SEPARATE, "scheduler.lora_start")), confirm(*ARMS)


def _best_lost() -> Case:
    """The best's own runs diverge, and another arm is the sweep's best by now."""
    other = arm("other", "best", learning_rate=1.2e-4)
    return _sweep("best lost", rows=RATES), confirm((other, None), ARMS[1], ARMS[2], seeds=2)


def _by_metric() -> Case:
    arms = ARMS[0], (arm("by metric", "best", learning_rate=3e-4), 2.02), ARMS[2]
    replicates = confirm(*arms, metrics=(0.45, 0.52, 0.3))
    return _sweep("by metric", rows=("scenario.general",), context={"metric": METRIC}), replicates


CASES: dict[str, Callable[[], Case]] = {
    "unfinished": _unfinished,
    "constant": _constant,
    "no-best": _no_best,
    "confirmed": _confirmed,
    "best-lost": _best_lost,
    "by-metric": _by_metric,
}

TABLE = """\
model,lr,rank,test_nll
org/tiny-8B,4e-5,8,1.1001
org/tiny-8B,4e-5,8,1.0999
org/tiny-8B,4e-4,16,1.0201
org/tiny-8B,8e-4,16,1.0000
org/tiny-8B,8e-4,16,1.0001
org/tiny-8B,2e-3,16,1.4000
org/other,1e-4,8,2.0
org/other,4e-4,8,1.9
org/other,1e-3,8,no number
"""
"""Runs that somebody published: two of one config, and a line that cannot be read."""
