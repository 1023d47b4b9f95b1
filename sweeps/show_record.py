"""`sweeps plan --show-record N`: one training record as the trials see it, token by token."""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.text import Text

from sweeps.config import SweepConfig

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from lora_runner.data import TokenizedExample

OPEN, CLOSE = "⟦", "⟧"
"""Stand around tokens with loss: colours are lost in a file."""


def show_record(config: SweepConfig, number: int) -> RenderableType:
    """Each sequence that the `number`-th training record (from 1) becomes, its tokens with loss marked.

    Records are numbered as the trials have them: those of the evaluation set, empty ones and what is not
    drawn are not among them; the place in the file stands above. Raises DataError for a number that there is
    not.
    """
    from lora_runner.data import DataSpec, resolve_chat_template, tokenise
    from lora_runner.data.dividing import divide
    from lora_runner.errors import DataError
    from lora_runner.models import BaseSpec, load_tokenizer

    spec = DataSpec(**config.data.model_dump())
    tokenizer = load_tokenizer(
        BaseSpec(
            model=config.model.name,
            revision=config.model.revision,
            trust_remote_code=config.model.trust_remote_code,
        )
    )
    train, _ = divide(spec)
    if not 1 <= number <= len(train.order):
        raise DataError(
            f"--show-record must be from 1 to {len(train.order)}, the number of training records; got"
            f" {number}",
            path=spec.train,
        )
    example = train.order[number - 1]
    found = tokenise(
        [example],
        tokenizer,
        source=spec.train,
        max_length=spec.max_length,
        completion_only=spec.completion_only,
        chat_template=resolve_chat_template(spec.chat_template, tokenizer),
    )
    head = Text(f"training record {number} of {len(train.order)}, {example.origin}", style="italic")
    said = [Text(line, style="dim") for line in found.rendering.sentences()]
    if not found.examples:
        said.append(Text("dropped: no token with loss lies within max_length", style="yellow"))
    return Group(head, *said, *(_marked(one, tokenizer) for one in found.examples))


def _marked(example: TokenizedExample, tokenizer: PreTrainedTokenizerBase) -> Text:
    from lora_runner.data import IGNORED

    text = Text("\n")
    pairs = zip(example.input_ids, example.labels, strict=True)
    for is_trained, run in groupby(pairs, key=lambda pair: pair[1] != IGNORED):
        words = tokenizer.decode([token for token, _ in run], clean_up_tokenization_spaces=False)
        text.append(
            f"{OPEN}{words}{CLOSE}" if is_trained else words, style="bold green" if is_trained else ""
        )
    return text
