"""Refuses data with token ids beyond the model's embeddings."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from lora_runner.data.load import DataBundle
from lora_runner.errors import DataError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

MAX_NAMED = 5
"""Tokens listed in the error; the rest are counted."""


def check_token_ids(data: DataBundle, tokenizer: PreTrainedTokenizerBase, num_embeddings: int) -> None:
    """Raise DataError for token ids at or beyond the model's `num_embeddings`.

    The message names the tokens, their ids, and how many sequences of each set contain them.
    """
    beyond = set[int]()
    counts = []
    for role, found in (("training", data.train), ("evaluation", data.eval)):
        holding = 0
        for example in found.examples:
            ids = np.asarray(example.input_ids)
            if int(ids.max()) >= num_embeddings:
                holding += 1
                beyond.update(ids[ids >= num_embeddings].tolist())
        if holding:
            counts.append(f"{holding:,} of {len(found):,} {role} sequences")
    if not beyond:
        return
    missing = sorted(beyond)
    named = ", ".join(f"{tokenizer.convert_ids_to_tokens(id)!r} (id {id})" for id in missing[:MAX_NAMED])
    more = f" and {len(missing) - MAX_NAMED:,} more" if len(missing) > MAX_NAMED else ""
    raise DataError(
        f"every token must have an embedding, and the model has {num_embeddings:,} (ids 0 to"
        f" {num_embeddings - 1:,}); the tokenizer makes {named}{more} of {' and '.join(counts)}. Add rows"
        f" (model.resize_token_embeddings({missing[-1] + 1}), saved with the tokenizer in one folder, and"
        " trained by train_embeddings), or use the model's own tokenizer, a chat_template or records without"
        " these tokens",
        path=data.train.source if "training" in counts[0] else data.eval.source,
    )
