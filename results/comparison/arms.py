"""Arms, which are configs that are replicated, and replicates, which are their runs on one seed each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

from files_and_text.plain_values import finite
from results.comparison.constants import LARGEST_LOSS
from search_spaces.dimension import Value

Role = Literal["best", "guideline_default", "row", "one_rate", "contrast", "retuned"]
ROLES: tuple[Role, ...] = get_args(Role)
_RATES = ("learning_rate", "embedding_lr_ratio")


@dataclass(frozen=True, kw_only=True)
class Arm:
    """One config that is replicated."""

    name: str
    role: Role
    """best (the first one is the reference), guideline_default, row (the row's own value, the rest as in the
    best), one_rate (one learning rate for LoRA and embeddings, at its own best main rate), contrast (a value
    outside a row, or a neighbour of the best, the rest as in the best), retuned (the sweep's best trial
    inside a row, with all of its own values)."""
    values: Mapping[str, Value]
    rows: tuple[str, ...] = ()
    """Guideline rows that the arm is there to test."""

    def to_dict(self) -> dict[str, Any]:
        """As the confirm study keeps it in its attribute `arms`."""
        return asdict(self) | {"values": dict(self.values), "rows": list(self.rows)}


@dataclass(frozen=True, kw_only=True)
class Replicate:
    """One run of an arm on a seed."""

    arm: str
    seed: int
    eval_loss: float | None
    """Nats per token at the full budget; None when the run ended early."""
    metric: float | None = None
    """The sweep's metric, where it has one."""
    outcome: str = ""
    """Of a run that ended early. `out_of_memory` and `failed` say nothing about the loss and count as
    missing; everything else, "" included, counts as lost by its config."""
    folder: str = ""
    """Relative to the sweep's run folder; "" where it is not known."""

    @property
    def loss(self) -> float | None:
        """The loss where it is finite and at most LARGEST_LOSS, else None."""
        found = finite(self.eval_loss)
        return None if found is None or abs(found) > LARGEST_LOSS else found

    @property
    def missing(self) -> bool:
        """Whether the run says nothing about its config's loss."""
        return self.loss is None and self.outcome in ("out_of_memory", "failed")

    @property
    def lost(self) -> bool:
        """Whether training itself ended the run early."""
        return self.loss is None and not self.missing


def reference(arms: Sequence[Arm]) -> Arm:
    """The arm that all others are compared with: the first of role `best`. ValueError when there is none."""
    for arm in arms:
        if arm.role == "best":
            return arm
    raise ValueError(f"one arm has the role 'best'; got {[arm.role for arm in arms]}")


def may_be_near_cliff(arm: Arm, best: Arm) -> bool:
    """Whether the arm may lie nearer to the cliff than the best, where noise is skewed.

    The loss is flat to the left of the best rate and a cliff to its right; scheduler, warmup, rank and so on
    move the cliff. So only an arm that differs from the best by lower rates alone is away from it.
    """
    ours, theirs = _rates(arm), _rates(best)
    if ours.keys() != theirs.keys() or _others(arm) != _others(best):
        return True
    is_above = any(ours[name] > theirs[name] * (1 + 1e-9) for name in ours)
    return is_above or not any(ours[name] < theirs[name] * (1 - 1e-9) for name in ours)


def _rates(arm: Arm) -> dict[str, float]:
    rate, ratio = (finite(arm.values.get(name)) for name in _RATES)
    if rate is None:
        return {}
    return {"main": rate} | ({} if ratio is None else {"embedding": rate * ratio})


def _others(arm: Arm) -> dict[str, Value]:
    return {name: value for name, value in arm.values.items() if name not in _RATES}


def runs_by_arm(replicates: Sequence[Replicate]) -> dict[str, dict[int, Replicate]]:
    """Arm -> seed -> run; of several runs on one seed the first that is not missing."""
    found: dict[str, dict[int, Replicate]] = {}
    for run in replicates:
        runs = found.setdefault(run.arm, {})
        if run.seed not in runs or runs[run.seed].missing:
            runs[run.seed] = run
    return found
