"""Whether a record is used, or why it is left out."""

from __future__ import annotations

from enum import StrEnum


class RecordStatus(StrEnum):
    """Decided before tokenizing."""

    USED = "used"
    EMPTY = "empty"
    HELD_OUT = "held_out"
    """A training record held out for evaluation, when no evaluation set is named."""
    IN_EVAL = "in_eval"
    """A training record that is also in the evaluation set."""
    COPY = "copy"
    """A duplicate within the evaluation set."""
    NOT_DRAWN = "not_drawn"
    """Beyond max_train_examples or max_eval_examples."""
