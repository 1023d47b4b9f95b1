"""Trials as marks: what a pointer on one shows, and which trials have which symbol."""

from __future__ import annotations

from collections.abc import Sequence

from files_and_text.numbers import value_text
from files_and_text.plain_values import finite
from results.parameter_order import in_order
from results.sweep_result import SweepResult, TrialResult
from results.text.gaps import short_loss

BROKEN = ("diverged", "out_of_memory", "failed")
EARLY = ("pruned", "frozen", *BROKEN)
"""Outcomes of trials that ended before their full budget; a frozen one may go on."""
SCHEDULER = "lr_scheduler_type"
LOSS_AXIS = "evaluation loss (nats per token)"


def searched(sweep: SweepResult) -> list[str]:
    """Hyperparameters that trials differ in, in the order in which they are spoken of."""
    return in_order([name for name, dimension in sweep.dimensions.items() if not dimension.fixed])


def trial_text(trial: TrialResult, names: Sequence[str], *, role: str = "") -> str:
    """What a pointer on a trial's mark shows."""
    head = f"trial {trial.number}, {trial.outcome.replace('_', ' ')}"
    lines = [f"{role}: {head}" if role else head]
    if trial.eval_loss is not None:
        lines.append(f"loss {short_loss(trial.eval_loss)}")
    elif trial.last_eval_loss is not None:
        lines.append(f"loss {short_loss(trial.last_eval_loss)} at {trial.percent}% of its budget")
    lines += [f"{name} {value_text(trial.values[name])}" for name in names if name in trial.values]
    if trial.eval_loss is None and trial.stop_reason:
        lines.append(trial.stop_reason[:120])
    return "\n".join(lines)


def positive(trial: TrialResult, name: str) -> float | None:
    """A hyperparameter that a log axis can show; None otherwise."""
    value = finite(trial.values.get(name))
    return value if value is not None and value > 0 else None
