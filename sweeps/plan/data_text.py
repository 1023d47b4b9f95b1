"""What `sweeps plan` and `sweeps run` say of the data: how much there is, and what was lost on the way."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.text import Text

if TYPE_CHECKING:
    from lora_runner.data import Notice
    from sweeps.plan.blueprint import Blueprint


def data_lines(blueprint: Blueprint) -> list[Text]:
    """Short lines for the row `data` of the plan, the first of them always there."""
    return [
        Text(
            f"{blueprint.num_train_examples:,} training examples with {blueprint.num_train_tokens:,} tokens; "
            f"{blueprint.num_eval_tokens:,} predicted tokens in the evaluation set"
        ),
        *map(Text, blueprint.data.train.rendering.sentences()),
        *map(notice_text, blueprint.data.notices),
    ]


def notice_text(notice: Notice) -> Text:
    """A notice as a line for a terminal; a warning says that it is one."""
    return Text(f"warning: {notice.text}", style="yellow") if notice.is_warning else Text(notice.text)
