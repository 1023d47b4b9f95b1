"""Names that sweep files, guideline rows and the trainer have in common."""

from __future__ import annotations

SCHEDULERS = (
    "linear",
    "constant",
    "cosine",
    "constant_with_warmup",
    "cosine_with_min_lr",
    "warmup_stable_decay",
    "inverse_sqrt",
)
"""`lr_scheduler_type` values that a trial may use, by their names in transformers."""
SCHEDULERS_WITHOUT_WARMUP = frozenset({"constant"})
"""Those that ignore `warmup_steps`, as in transformers."""

DATA_FORMATS = ("messages", "sharegpt", "prompt_completion", "alpaca", "text")
"""Record formats; the order is the preference when a record fits several."""

BUILT_IN_METRICS = ("exact_match", "contains", "json_valid")
"""Scores of generated answers that need no function of the user; higher is better for all."""
