"""The tokenizer saved beside the best adapter, so that it is prompted as it was trained."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@contextmanager
def served_tokenizer(
    tokenizer: PreTrainedTokenizerBase, chat_template: str | None, say: Callable[[str], None]
) -> Iterator[Path]:
    """A temporary folder with the base's tokenizer, which gets the trials' own `chat_template` if they have
    one.

    The folder stays empty when the tokenizer cannot be saved (some are saved by code of their own); `say`
    receives the reason, and no result is lost.
    """
    with TemporaryDirectory(prefix="sweeps-tokenizer-") as folder:
        served = copy.copy(tokenizer)
        if chat_template is not None:
            served.chat_template = chat_template
        try:
            served.save_pretrained(folder)
        except (OSError, ValueError, TypeError, AttributeError, NotImplementedError) as error:
            say(f"best/ gets no tokenizer, because it cannot be saved: {type(error).__name__}: {error}")
        yield Path(folder)
