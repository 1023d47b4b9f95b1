"""What of embeddings and output layer is trained: layers in full, or a few tokens."""

from __future__ import annotations

from typing import Any

from pydantic_core import PydanticCustomError

from files_and_text.nearest_name import nearest
from sweeps.config.fields import Finding, all_wrong, check_list_of, findings_of, shown, wrong
from sweeps.config.sections.base import Section

EMBEDDING_MODULES = ("embed_tokens", "lm_head")


class TrainedTokens(Section):
    """Tokens whose embeddings alone are trained."""

    tokens: tuple[str | int, ...]
    """As the tokenizer writes them, or ids of the model's vocabulary."""


def check_embeddings(value: Any) -> bool | tuple[str, ...] | TrainedTokens:
    """true, false, a list of layers, or {tokens: [...]}."""
    if isinstance(value, TrainedTokens):
        return value
    if isinstance(value, dict):
        return _tokens_of(value)
    if isinstance(value, str):
        words = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}
        value = words.get(value.strip().lower(), value)
    if isinstance(value, bool):
        return value
    if not isinstance(value, list | tuple):
        rule = f"must be true, false or a list of {' and '.join(EMBEDDING_MODULES)}, or {{tokens: [...]}}"
        raise wrong(f"{rule}; got {shown(value)}")
    found: list[Finding] = [
        (
            (index,),
            f"must name an embedding, or tokens stand as {{tokens: [...]}}; got {shown(name)}."
            f"{nearest(name, EMBEDDING_MODULES)}",
        )
        for index, name in enumerate(value)
        if name not in EMBEDDING_MODULES
    ]
    if found:
        raise all_wrong(found)
    # In one order and once each, so that the same choice is the same config.
    return tuple(name for name in EMBEDDING_MODULES if name in value) or False


def _tokens_of(value: dict[Any, Any]) -> TrainedTokens:
    found: list[Finding] = []
    for key in value:
        if key in EMBEDDING_MODULES:
            found.append(
                ((key,), "cannot stand beside tokens: layers are trained in full, or by a few tokens")
            )
        elif key != "tokens":
            found.append(((key,), f"is not known to train_embeddings.{nearest(key, ['tokens'])}"))
    if found:
        raise all_wrong(found)
    if "tokens" not in value:
        raise wrong(f"needs tokens, or is true, false or a list of layers; got {shown(value)}")
    if value["tokens"] in ([], ()):
        raise wrong(
            "must name at least one token; got an empty list (train_embeddings: false trains none)", "tokens"
        )
    try:
        tokens = check_list_of(_token, what="tokens")(value["tokens"])
    except PydanticCustomError as error:
        raise all_wrong([(("tokens", *key), said) for key, said in findings_of(error)]) from None
    # Once each: a token's row is trained once, however often it is named.
    return TrainedTokens(tokens=tuple(dict.fromkeys(tokens)))


def _token(value: Any) -> str | int:
    if isinstance(value, str) and value:
        return value  # whatever it looks like: digits and blanks are tokens too
    if isinstance(value, int) and not isinstance(value, bool):
        if value < 0:
            raise wrong(f"must be a token id, at least 0; got {value}")
        return value
    rule = "must be a token as the tokenizer writes it, or its id as a whole number"
    raise wrong(f"{rule}; got {shown(value)}{'; put it in quotes' if isinstance(value, bool) else ''}")
