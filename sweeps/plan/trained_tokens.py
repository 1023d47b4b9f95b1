"""The tokens of `train_embeddings` as ids of the model's vocabulary."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from files_and_text.nearest_name import did_you_mean
from files_and_text.problems import Problem
from files_and_text.yaml_lines import ProblemAt
from lora_runner.base.load_model import vocabulary_size
from lora_runner.base.target_modules import find_trained_modules
from sweeps.config import SweepConfig
from sweeps.config.validation import dotted
from sweeps.errors import ConfigError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_MAX_SHOWN = 12
"""Known tokens listed in an error: some tokenizers reserve hundreds."""


def trained_tokens(
    config: SweepConfig, model: PreTrainedModel, tokenizer: Any, problem_at: ProblemAt
) -> tuple[int, ...]:
    """Ids of the tokens whose embeddings are trained alone, ascending; empty when there are none.

    `model` may be on the meta device. Raises ConfigError for tokens that the model cannot train, and
    ModelError when a layer would be trained in two ways or target_modules match nothing.
    """
    indices = _token_indices(config.embedding_tokens, tokenizer, model, problem_at)
    find_trained_modules(
        model,
        target_modules=config.lora.target_modules,
        train_embeddings=config.embedding_modules,
        trainable_token_indices=indices,
    )
    return indices


def _token_indices(
    tokens: Sequence[str | int], tokenizer: Any, model: PreTrainedModel, problem_at: ProblemAt
) -> tuple[int, ...]:
    """Distinct ids of `tokens`. ConfigError lists all tokens without a row, and a padding token that gets no
    gradient."""
    vocabulary, untrained = vocabulary_size(model), _untrained_row(model)
    ids, problems = set[int](), list[Problem]()
    known = tokenizer.get_vocab() if tokens else {}
    for position, token in enumerate(tokens):
        index = token if isinstance(token, int) else known.get(token)
        if index is not None and index < vocabulary and index != untrained:
            ids.add(int(index))
            continue
        if index is None:
            message = f"must be a token of the model's tokenizer; got {token!r}.{_like(token, tokenizer)}"
        elif index == untrained:
            message = (
                f"must not be the padding token: torch and peft give the row of {token!r} (id {index}, "
                "pad_token_id of the model's config.json) no gradient. Give model and tokenizer another pad "
                "token, or remove this one"
            )
        elif isinstance(token, int):
            message = f"must be a token id below the model's vocabulary of {vocabulary}; got {token}"
        else:
            message = (
                f"must have an embedding: {token!r} has id {index}, and the model's vocabulary ends at "
                f"{vocabulary - 1}. Resize it (resize_token_embeddings) and save model and tokenizer together"
            )
        key = ("train_embeddings", "tokens", position)
        problems.append(problem_at(key, f"{dotted(key)} {message}"))
    if problems:
        raise ConfigError(problems)
    return tuple(sorted(ids))


def _untrained_row(model: PreTrainedModel) -> int | None:
    """Row of the input embeddings that never gets a gradient; None if a tied output layer gives it one."""
    embeddings, head = model.get_input_embeddings(), model.get_output_embeddings()
    if head is not None and head.weight is embeddings.weight:
        return None
    return getattr(embeddings, "padding_idx", None)


def _like(token: object, tokenizer: Any) -> str:
    """The nearest special or added token, and some of the others."""
    added = sorted(tokenizer.get_added_vocab(), key=tokenizer.get_added_vocab().get)
    names = list(dict.fromkeys([*tokenizer.all_special_tokens, *added]))
    more = f" and {len(names) - _MAX_SHOWN} more" if len(names) > _MAX_SHOWN else ""
    shown = ", ".join(names[:_MAX_SHOWN]) or "none"
    return f"{did_you_mean(token, names)} Its special and added tokens: {shown}{more}."
