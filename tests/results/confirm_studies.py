"""Confirm studies built by hand, as the keeper leaves them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import optuna
from optuna.trial import TrialState, create_trial

BEST = {
    "learning_rate": 4e-4,
    "embedding_lr_ratio": 0.125,
    "lr_scheduler_type": "cosine",
    "warmup_ratio": 0.05,
}
WOBBLE = (0.0, 0.0003, -0.0002, 0.0001, -0.0003)


def arm(name: str, role: str, rows: tuple[str, ...] = (), **changed: Any) -> dict[str, Any]:
    return {"name": name, "role": role, "values": BEST | changed, "rows": list(rows)}


def confirm(
    *arms: tuple[dict[str, Any], float | None], seeds: int = 5, metrics: Sequence[float] = ()
) -> optuna.Study:
    """Arms with their mean losses (None: every run diverges) and metrics; seeds move all of them alike."""
    study = optuna.create_study(study_name=f"confirm-{id(arms)}")
    study.set_user_attr("arms", [entry for entry, _ in arms])
    for seed in range(seeds):
        for index, (entry, loss) in enumerate(arms):
            attrs: dict[str, Any] = {"arm": entry["name"], "seed": seed + 100}
            if loss is None:
                state, value = TrialState.PRUNED, None
                attrs["outcome"] = "diverged"
            else:
                state, value = TrialState.COMPLETE, loss + 0.05 * seed + WOBBLE[(seed + index) % 5]
                attrs["outcome"] = "complete"
            if metrics:
                attrs |= {"metric": metrics[index] + 0.01 * (seed % 3) * index, "eval_loss": value}
            study.add_trial(create_trial(state=state, value=value, user_attrs=attrs))
    return study


ARMS = (
    (arm("best", "best"), 2.0),
    (arm("default", "guideline_default", learning_rate=2e-4, embedding_lr_ratio=0.25), 2.1),
    (arm("rate 2e-4", "row", ("scenario.general", "size.7-8b"), learning_rate=2e-4), 2.05),
    (arm("rate 1e-3", "row", ("boundary.too_high",), learning_rate=1e-3), None),
    (arm("linear", "row", ("scheduler.short",), lr_scheduler_type="linear"), 2.0001),
    (arm("constant", "row", ("scheduler.short",), lr_scheduler_type="constant"), 2.3),
    (arm("warmup 0.1", "row", ("warmup.share_of_steps",), warmup_ratio=0.1), 2.0002),
    (arm("one rate", "one_rate", learning_rate=2e-4, embedding_lr_ratio=1.0), 2.2),
)
