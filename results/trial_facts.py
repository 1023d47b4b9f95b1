"""What one stored trial says about itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from optuna.trial import FrozenTrial, TrialState

from results.plain import finite


def full_budget_loss(trial: FrozenTrial) -> float | None:
    """The value of a trial that is COMPLETE by every record of it, else None; nats per token.

    Some tools store an early-stopped trial as COMPLETE with its truncated value; Optuna gives a pruned one
    its last report as value, and accepts an infinite value as COMPLETE. None may be the best or a cost.
    """
    attrs = trial.user_attrs
    if trial.state != TrialState.COMPLETE or attrs.get("outcome", "complete") != "complete":
        return None
    done, budget = finite(attrs.get("num_steps")), finite((attrs.get("config") or {}).get("max_steps"))
    if done is not None and budget is not None and done < budget:
        return None
    return finite(trial.values[0]) if trial.values else None


def sign_names(attrs: Mapping[str, Any]) -> tuple[str, ...]:
    """Names of the stability signs in a trial's attributes, each once, in the order they showed."""
    signs = attrs.get("signs") or ()
    return tuple(dict.fromkeys(str(sign["sign"]) for sign in signs))
