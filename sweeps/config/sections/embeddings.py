"""`train_embeddings`: which embeddings and output layers are trained, in full or by a few tokens."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field

from files_and_text.nearest_name import nearest
from sweeps.config.field_types import flag
from sweeps.config.sections.base import Section
from sweeps.config.validation import refusal, shown

EMBEDDING_MODULES = ("embed_tokens", "lm_head")


def _token(value: Any) -> str | int:
    if isinstance(value, str) and value:
        return value  # whatever it looks like: digits and blanks are tokens too
    if not isinstance(value, int) or isinstance(value, bool):
        quote = "; put it in quotes" if isinstance(value, bool) else ""
        rule = "must be a token as the tokenizer writes it, or its id as a whole number"
        raise ValueError(f"{rule}; got {shown(value)}{quote}")
    if value < 0:
        raise ValueError(f"must be a token id, at least 0; got {value}")
    return value


def _distinct_tokens(tokens: tuple[str | int, ...]) -> tuple[str | int, ...]:
    if not tokens:
        rule = "must name at least one token; got an empty list (train_embeddings: false trains none)"
        raise ValueError(rule)
    return tuple(dict.fromkeys(tokens))


class TrainedTokens(Section):
    """Tokens whose embeddings alone are trained."""

    tokens: Annotated[
        tuple[Annotated[str | int, BeforeValidator(_token)], ...],
        Field(title="tokens"),
        AfterValidator(_distinct_tokens),
    ]
    """Tokens as the tokenizer writes them, or ids of the model's vocabulary."""


def _embedding(name: Any) -> str:
    if name in EMBEDDING_MODULES:
        return str(name)
    rule = "must name an embedding, or give tokens as {tokens: [...]}"
    raise ValueError(f"{rule}; got {shown(name)}.{nearest(name, EMBEDDING_MODULES)}")


def _tokens_or_layers(value: Any) -> Any:
    if isinstance(value, dict):
        both = [
            ((key,), "cannot be given with tokens: layers are trained in full, or by a few tokens")
            for key in EMBEDDING_MODULES
            if key in value
        ]
        if both:
            raise refusal(both)
        if not value:
            raise ValueError("needs tokens, or is true, false or a list of layers; got an empty mapping")
        return TrainedTokens.model_validate(value)
    value = flag(value)
    if isinstance(value, bool | list | tuple | TrainedTokens):
        return value
    rule = f"must be true, false or a list of {' and '.join(EMBEDDING_MODULES)}, or {{tokens: [...]}}"
    raise ValueError(f"{rule}; got {shown(value)}")


def _in_order(value: bool | tuple[str, ...] | TrainedTokens) -> bool | tuple[str, ...] | TrainedTokens:
    """Layers in one order and once each, so that the same choice is the same config."""
    if isinstance(value, tuple):
        return tuple(name for name in EMBEDDING_MODULES if name in value) or False
    return value


TrainEmbeddings = Annotated[
    bool | tuple[Annotated[str, BeforeValidator(_embedding)], ...] | TrainedTokens,
    BeforeValidator(_tokens_or_layers),
    AfterValidator(_in_order),
]
"""true, false, a list of layers, or {tokens: [...]}."""
