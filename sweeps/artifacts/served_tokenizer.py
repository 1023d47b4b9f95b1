"""The tokenizer that goes with the best adapter: what is served is prompted as it was trained."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def save_tokenizer(tokenizer: PreTrainedTokenizerBase, chat_template: str | None, folder: Path) -> str | None:
    """Save the base's tokenizer into `folder`, with the template of the trials where they had one of their
    own.

    Returns why not where it cannot be saved (some come with a model and save themselves by code of their
    own): no result is lost for that.
    """
    served = copy.copy(tokenizer)
    if chat_template is not None:
        served.chat_template = chat_template
    try:
        served.save_pretrained(folder)
    except (OSError, ValueError, TypeError, AttributeError, NotImplementedError) as error:
        return f"best/ gets no tokenizer, it cannot be saved: {type(error).__name__}: {error}"
    return None
