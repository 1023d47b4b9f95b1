"""Which layers of a model are trained: those that get LoRA, by peft's rules, and those trained in full."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from lora_runner.errors import ModelError
from lora_runner.models import vocabulary_size


def find_targets(model: nn.Module, target_modules: str | Sequence[str]) -> list[str]:
    """Names of the linear layers that get LoRA, in the model's own order, with peft's matching rules.

    `all-linear` takes every linear layer but the output layer; GPT-2's transposed `Conv1D` counts as one. A
    list matches full names or last components; any other string is a regular expression on the full name.
    Raises ModelError when an entry matches nothing.
    """
    linear = [name for name, module in model.named_modules() if isinstance(module, nn.Linear | Conv1D)]
    output = model.get_output_embeddings() if isinstance(model, PreTrainedModel) else None
    leaves = sorted({name.rpartition(".")[2] for name in linear})
    if target_modules == "all-linear":
        found = [name for name in linear if model.get_submodule(name) is not output]
        if not found:
            raise ModelError("target_modules all-linear matches nothing: the model has no linear layer")
        return found
    if isinstance(target_modules, str):
        try:
            found = [name for name in linear if re.fullmatch(target_modules, name)]
        except re.error as error:
            raise ModelError(
                f"target_modules {target_modules!r} is no regular expression: {error}"
            ) from error
        if not found:
            hint = (
                f" For every layer of that name, write [{target_modules}]."
                if target_modules in leaves
                else ""
            )
            raise ModelError(
                f"target_modules pattern {target_modules!r} matches the full name of no linear layer.{hint}"
            )
        return found
    if not target_modules:
        raise ModelError("target_modules is empty: name at least one layer, or all-linear")
    for target in target_modules:
        if not any(_matches(name, target) for name in linear):
            near = difflib.get_close_matches(target, leaves, n=1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise ModelError(
                f"target_modules entry {target!r} matches no linear layer.{hint} Known: {', '.join(leaves)}"
            )
    return [name for name in linear if any(_matches(name, target) for target in target_modules)]


def _matches(name: str, target: str) -> bool:
    return name == target or name.endswith(f".{target}")


@dataclass(frozen=True)
class SavedModules:
    """Which layers are trained in full beside LoRA (peft's `modules_to_save`), by their full names."""

    names: tuple[str, ...] = ()
    tied: bool = False
    """Embedding and output layer are one weight: one copy is trained and both use it."""
    token_indices: tuple[int, ...] = ()
    """Rising ids of the tokens whose rows alone are trained (`trainable_token_indices`); empty: all rows."""


def find_trained(
    model: PreTrainedModel,
    *,
    target_modules: str | Sequence[str],
    train_embeddings: bool | Sequence[str],
    trainable_token_indices: Sequence[int] = (),
) -> tuple[list[str], SavedModules]:
    """The layers that get LoRA, and those of which seats train their own copy or rows.

    `trainable_token_indices` concern the input embeddings, and a tied output layer with them, as in peft.
    Raises ModelError when a layer would be trained in two ways, or an id is none of the model's vocabulary.
    """
    targets = find_targets(model, target_modules)
    if not trainable_token_indices:
        saved, how = find_saved(model, train_embeddings), "in full (train_embeddings)"
    elif train_embeddings:
        raise ModelError(
            "trainable_token_indices cannot stand beside train_embeddings: train a few tokens or the layers"
        )
    else:
        indices = tuple(sorted(set(trainable_token_indices)))
        size = vocabulary_size(model)
        if beyond := [index for index in indices if not 0 <= index < size]:
            raise ModelError(
                f"trainable_token_indices are ids of the model's vocabulary, 0 to {size - 1}, got {beyond[0]}"
            )
        saved = replace(find_saved(model, ("embed_tokens",)), token_indices=indices)
        how = "by its tokens (trainable_token_indices)"
    if twice := sorted(set(targets) & set(saved.names)):
        raise ModelError(
            f"{', '.join(twice)} cannot be trained {how} and through LoRA (target_modules): choose one"
        )
    return targets, saved


def find_saved(model: PreTrainedModel, wanted: bool | Sequence[str]) -> SavedModules:
    """Resolve `train_embeddings` (true: input embeddings and output layer) to module names.

    With tied embeddings both layers share the one trained copy, whichever of them was named, since training
    them apart would untie the model.
    """
    if not wanted:
        return SavedModules()
    modules: dict[str, nn.Module | None] = {
        "embed_tokens": model.get_input_embeddings(),
        "lm_head": model.get_output_embeddings(),
    }
    chosen = list(modules) if wanted is True else list(wanted)
    unknown = sorted(set(chosen) - set(modules))
    if unknown:
        raise ModelError(f"train_embeddings knows embed_tokens and lm_head, got {', '.join(unknown)}")
    head = modules["lm_head"]
    tied = head is not None and head.weight is modules["embed_tokens"].weight  # type: ignore[union-attr]
    if tied:
        chosen = list(modules)
    names = {id(module): name for name, module in model.named_modules()}
    return SavedModules(tuple(names[id(m)] for key in chosen if (m := modules[key]) is not None), tied)
