"""What `sweeps plan` says of the data: how much there is, and what was made of it."""

from __future__ import annotations

from sweeps.blueprint import Blueprint


def data_lines(blueprint: Blueprint) -> list[str]:
    """Short lines for the row `data` of the plan, the first of them always there."""
    return [
        f"{blueprint.num_train_examples:,} training examples with {blueprint.num_train_tokens:,} tokens; "
        f"{blueprint.num_eval_tokens:,} predicted tokens in the evaluation set"
    ]
