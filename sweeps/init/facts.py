"""What `sweeps init` looks at before it chooses: the model's size and positions, the data's form and lengths.

Imports torch and transformers, which takes seconds.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from lora_runner.base.load_model import BaseSpec, check_weights, load_tokenizer, meta_model, num_parameters_of
from lora_runner.base.model_structure import text_config
from lora_runner.data import DataBundle, load_data, read_records, resolve_chat_template
from lora_runner.data_spec import DataSpec
from lora_runner.errors import DataError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

MEASURED_RECORDS = 2000
"""Training records whose lengths are measured: enough for a percentile, and a matter of seconds."""
FEW_EVALUATED = 32
"""With fewer held-out records than this, the evaluation loss says little."""
NO_LIMIT = 2**30
CHATML_TOKENS = {"<|im_start|>", "<|im_end|>"}
PLAIN_TEMPLATE = (
    "{% for message in messages %}{{ message['role'] | capitalize + ': ' }}"
    "{% if message['role'] == 'assistant' %}"
    "{% generation %}{{ message['content'] + eos_token }}{% endgeneration %}"
    "{% else %}{{ message['content'] }}{% endif %}{{ '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'Assistant: ' }}{% endif %}"
)
"""For tokenizers without ChatML's tokens: names the roles in text, and ends answers with EOS."""


@dataclass(frozen=True, kw_only=True)
class ModelFacts:
    """The base as its configuration describes it."""

    name: str
    size: float
    """Parameters."""
    max_positions: int | None
    """Most tokens of a sequence; None: no limit is configured."""


@dataclass(frozen=True, kw_only=True)
class DataFacts:
    """The records as the tokenizer reads them."""

    format: str
    num_records: int
    """Training records as read."""
    num_train: int
    """Sequences to train on."""
    num_held_out: int
    """Records to evaluate on; of the training records, unless evaluation data are named."""
    eval_fraction: float
    """The share held out."""
    lengths: tuple[int, ...]
    """Tokens of the measured sequences, rising."""
    is_sample: bool
    """Whether only some of the training records were measured."""
    chat_template: str | None = None
    """What `chat_template` must be set to; None: the tokenizer's own does, or there are no conversations."""
    stop_token: str | None = None
    """The token that ends most answers."""
    eval_split: str | None = None
    """A split of the training source that is meant for evaluation."""


def model_facts(base: BaseSpec) -> ModelFacts:
    """Read a base's configuration. Raises ModelError."""
    check_weights(base)
    meta = meta_model(base)
    positions = getattr(text_config(meta), "max_position_embeddings", None)
    return ModelFacts(name=base.model, size=float(num_parameters_of(meta)), max_positions=positions)


def data_facts(spec: DataSpec, base: BaseSpec) -> DataFacts:
    """Read and tokenize the data, of a large training set a sample. Raises DataError, ModelError."""
    tokenizer = load_tokenizer(base)
    split = _validation_split(spec)
    share = held_out_share(len(read_records(spec.train, split=spec.train_split)), spec.eval_fraction)
    template = None if resolve_chat_template(None, tokenizer) else stock_template(tokenizer)
    spec = replace(
        spec,
        eval_split=split,
        eval_fraction=share,
        max_length=NO_LIMIT,
        max_train_examples=MEASURED_RECORDS,
        chat_template=template,
    )
    data = load_data(spec, tokenizer)
    counts = data.train.counts
    drawn = (counts.num_used + counts.num_not_drawn) / counts.num_used
    return DataFacts(
        format=data.format,
        num_records=counts.num_records,
        num_train=round(len(data.train) * drawn),
        num_held_out=data.eval.counts.num_records,
        eval_fraction=share,
        lengths=_lengths(data),
        is_sample=counts.num_not_drawn > 0,
        chat_template=template if data.chat_template is not None else None,
        stop_token=next((token.text for token in data.train.rendering.stop_tokens), None),
        eval_split=split,
    )


def held_out_share(num_records: int, least: float) -> float:
    """Enough records for a loss that says something, at most a fifth of them."""
    return max(least, min(0.2, math.ceil(100 * FEW_EVALUATED / num_records) / 100))


def stock_template(tokenizer: PreTrainedTokenizerBase) -> str | None:
    """A chat template for a tokenizer that has none; None where no answer could end."""
    if CHATML_TOKENS.issubset(tokenizer.get_vocab()):
        return "chatml"
    if tokenizer.eos_token is None:
        return None
    starts = tokenizer("a").input_ids[:1] == [tokenizer.bos_token_id]
    return ("{{ bos_token }}" if starts else "") + PLAIN_TEMPLATE


def _lengths(data: DataBundle) -> tuple[int, ...]:
    return tuple(sorted(len(example.input_ids) for example in (*data.train.examples, *data.eval.examples)))


def _validation_split(spec: DataSpec) -> str | None:
    """The split of a folder or hub id that is for validation; the test split is kept for later."""
    if spec.eval is not None or Path(spec.train).is_file():
        return None
    try:
        read_records(spec.train, split="validation")
    except DataError:
        return None
    return "validation"
