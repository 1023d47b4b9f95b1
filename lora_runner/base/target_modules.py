"""Which layers of a model are trained: those that get LoRA, by peft's rules, and those trained in full."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from peft import LoraConfig
from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from files_and_text.nearest_name import nearest
from lora_runner.base.load_model import vocabulary_size
from lora_runner.base.model_structure import language_model_of
from lora_runner.errors import ModelError

ALL_LINEAR = "all-linear"
_BYPASS_ADAPTERS = frozenset({"falcon_h1", "falcon_mamba", "mamba", "mamba2", "nemotron_h"})
"""Model types whose kernels read `out_proj` as a weight; peft 0.21 refuses an adapter there
(`tuners_utils._check_lora_target_modules_mamba`)."""


def find_target_modules(model: nn.Module, target_modules: str | Sequence[str]) -> list[str]:
    """Names of the linear layers that get LoRA, in the model's own order, with peft's matching rules.

    `all-linear` takes every linear layer but the output layer; GPT-2's transposed `Conv1D` counts as one. A
    list matches full names or last components; any other string is a regular expression on the full name.
    Of a multimodal model only the language model's layers count (`untrainable_layers`). Raises ModelError
    when an entry matches nothing, or a layer that no adapter can be added to.
    """
    linear = [name for name, module in model.named_modules() if isinstance(module, nn.Linear | Conv1D)]
    output = model.get_output_embeddings() if isinstance(model, PreTrainedModel) else None
    untrainable = untrainable_layers(model)
    if target_modules == ALL_LINEAR:
        found = [n for n in linear if n not in untrainable and model.get_submodule(n) is not output]
        if not found:
            raise ModelError("target_modules all-linear matches nothing: the model has no linear layer")
        return found
    found = _matching(linear, target_modules)
    # A matched name may be outside the language model, but never a layer that cannot have an adapter.
    impossible = [name for name in found if name in untrainable and not untrainable[name].is_elsewhere]
    trained = [name for name in found if name not in untrainable]
    if impossible or not trained:
        first = (impossible or found)[0]
        raise ModelError(
            f"target_modules {target_modules!r} takes {first}, which {untrainable[first].reason}; "
            "leave it out, or use all-linear, which does"
        )
    return trained


def _matching(linear: Sequence[str], target_modules: str | Sequence[str]) -> list[str]:
    leaves = sorted({name.rpartition(".")[2] for name in linear})
    if isinstance(target_modules, str):
        try:
            found = [name for name in linear if re.fullmatch(target_modules, name)]
        except re.error as error:
            raise ModelError(
                f"target_modules {target_modules!r} is not a regular expression: {error}"
            ) from error
        if not found:
            hint = (
                f" For every layer of that name, write [{target_modules}]."
                if target_modules in leaves
                else ""
            )
            raise ModelError(
                f"target_modules pattern {target_modules!r} matches no linear layer's full name.{hint}"
            )
        return found
    if not target_modules:
        raise ModelError("target_modules is empty: name at least one layer, or all-linear")
    for target in target_modules:
        if not any(_matches(name, target) for name in linear):
            raise ModelError(
                f"target_modules entry {target!r} matches no linear layer.{nearest(target, leaves)}"
            )
    return [name for name in linear if any(_matches(name, target) for target in target_modules)]


@dataclass(frozen=True)
class Untrainable:
    """Why a linear layer cannot have an adapter."""

    reason: str
    """As text, to follow "which"."""
    is_elsewhere: bool = False
    """It is not part of the language model, so training on text would not change it."""


def untrainable_layers(model: nn.Module) -> dict[str, Untrainable]:
    """The linear layers that get no adapter whatever `target_modules` says, by full name."""
    if not isinstance(model, PreTrainedModel):
        return {}
    found = dict[str, Untrainable]()
    elsewhere = Untrainable("is not part of the language model: training on text would not change it", True)
    bypassing = Untrainable(
        f"the kernels of {model.config.model_type} models read as a weight, bypassing any adapter"
    )
    converted = Untrainable(
        f"peft takes for fused experts in {model.config.model_type} models; those stay frozen here"
    )
    own = {*language_model_of(model).modules(), model.get_output_embeddings()}
    linear = [(n, m) for n, m in model.named_modules() if isinstance(m, nn.Linear | Conv1D)]
    experts = _names_taken_for_experts(model)
    for name, module in linear:
        if module not in own:
            found[name] = elsewhere
        elif name.rpartition(".")[2] in experts:
            found[name] = converted
        elif model.config.model_type in _BYPASS_ADAPTERS and name.rpartition(".")[2] == "out_proj":
            found[name] = bypassing
        elif has_own_forward(module) and not _gives_rows(module):
            found[name] = Untrainable(
                f"is a {type(module).__name__}: its forward does not return one row of outputs per input "
                "row, so no adapter can be added (nor can peft)"
            )
    return found


def _names_taken_for_experts(model: PreTrainedModel) -> set[str]:
    """Names of layers that peft takes for parameters of fused experts, as they were called in transformers 4.

    So peft could not load an adapter for a layer that still has such a name (DeepSeek-V3's shared experts).
    """
    try:
        from peft.utils.transformers_weight_conversion import convert_peft_config_for_transformers
    except ImportError:  # an older peft does not convert
        return set()
    names = {"gate", "gate_proj", "up_proj", "down_proj", "w1", "w2", "w3"}
    config = LoraConfig(target_modules=sorted(names))
    convert_peft_config_for_transformers(config, model, None)
    assert config.target_modules is not None
    return names - set(config.target_modules)


def extra_peft_targets(model: PreTrainedModel) -> list[str]:
    """Last name components that peft's `all-linear` includes and this one does not, such as fused experts."""
    return sorted(
        {name.rpartition(".")[2] for name in untrainable_layers(model)} | _names_taken_for_experts(model)
    )


def shortest_names(model: nn.Module, wanted: Sequence[str]) -> list[str]:
    """Last name components if they match exactly the wanted layers, full names otherwise."""
    leaves = sorted({name.rpartition(".")[2] for name in wanted})
    matched = {
        name
        for name, module in model.named_modules()
        if name.rpartition(".")[2] in leaves and hasattr(module, "weight")
    }
    return leaves if matched == set(wanted) else sorted(wanted)


def has_own_forward(module: nn.Module) -> bool:
    """Whether a linear layer's class overrides forward, as routers do."""
    kind = type(module)
    return (
        isinstance(module, nn.Linear)
        and kind.forward is not nn.Linear.forward
        and not kind.__module__.startswith("bitsandbytes.")
    )


def _gives_rows(module: nn.Module) -> bool:
    """Whether a layer with its own forward maps rows (T, in) to rows (T, out)."""
    assert isinstance(module, nn.Linear)
    rows = torch.zeros(3, module.in_features, dtype=module.weight.dtype, device=module.weight.device)
    try:
        with torch.no_grad():
            out = module(rows)
    except (TypeError, ValueError, RuntimeError, IndexError):
        return False
    return isinstance(out, torch.Tensor) and out.shape == (3, module.out_features)


def _matches(name: str, target: str) -> bool:
    return name == target or name.endswith(f".{target}")


@dataclass(frozen=True)
class ModulesToSave:
    """Layers trained in full beside LoRA (peft's `modules_to_save`), by full name."""

    names: tuple[str, ...] = ()
    tied: bool = False
    """Embedding and output layer share one weight: one copy is trained and both use it."""
    token_indices: tuple[int, ...] = ()
    """Sorted ids of the only tokens whose rows are trained (`trainable_token_indices`); empty: all rows."""


def find_trained_modules(
    model: PreTrainedModel,
    *,
    target_modules: str | Sequence[str],
    train_embeddings: bool | Sequence[str],
    trainable_token_indices: Sequence[int] = (),
) -> tuple[list[str], ModulesToSave]:
    """The layers that get LoRA, and those trained in full or for single tokens.

    `trainable_token_indices` concern the input embeddings, and a tied output layer with them, as in peft.
    Raises ModelError when a layer would be trained in two ways, or an id is not in the model's vocabulary.
    """
    targets = find_target_modules(model, target_modules)
    if not trainable_token_indices:
        saved, how = find_modules_to_save(model, train_embeddings), "in full (train_embeddings)"
    elif train_embeddings:
        raise ModelError(
            "trainable_token_indices and train_embeddings exclude each other: train tokens or whole layers"
        )
    else:
        indices = tuple(sorted(set(trainable_token_indices)))
        size = vocabulary_size(model)
        if beyond := [index for index in indices if not 0 <= index < size]:
            raise ModelError(
                f"trainable_token_indices are ids of the model's vocabulary, 0 to {size - 1}, got {beyond[0]}"
            )
        saved = replace(find_modules_to_save(model, ("embed_tokens",)), token_indices=indices)
        how = "by its tokens (trainable_token_indices)"
    if twice := sorted(set(targets) & set(saved.names)):
        raise ModelError(
            f"{', '.join(twice)} cannot be trained {how} and through LoRA (target_modules): choose one"
        )
    return targets, saved


def find_modules_to_save(model: PreTrainedModel, wanted: bool | Sequence[str]) -> ModulesToSave:
    """Resolve `train_embeddings` (true: input embeddings and output layer) to module names.

    Tied embeddings share one trained copy, whichever layer was named, since separate copies would untie the
    model.
    """
    if not wanted:
        return ModulesToSave()
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
    return ModulesToSave(tuple(names[id(m)] for key in chosen if (m := modules[key]) is not None), tied)
