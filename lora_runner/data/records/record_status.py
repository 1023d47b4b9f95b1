"""What is done with a record: used, or left out and why."""

from __future__ import annotations

from enum import StrEnum


class RecordStatus(StrEnum):
    """What is done with a record before anything is tokenised."""

    USED = "used"
    EMPTY = "empty"
    HELD_OUT = "held_out"
    """A training record that evaluates, where no evaluation set is named."""
    IN_EVAL = "in_eval"
    """A training record whose copy evaluates."""
    COPY = "copy"
    """An evaluation record that the evaluation set holds already."""
    NOT_DRAWN = "not_drawn"
    """Beyond max_train_examples or max_eval_examples."""
