"""Converting a loaded model for a pack: modules replaced in place, decoder and head apart."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.modeling_outputs import BaseModelOutputWithPast
from transformers.pytorch_utils import Conv1D

from lora_runner.base.model_structure import decoder_of
from lora_runner.base.target_modules import find_trained_modules, has_own_forward
from lora_runner.errors import ModelError
from lora_runner.layers.embeddings import PackedEmbedding, PackedHead, PackedSavedModule
from lora_runner.layers.linear import PackContext, PackedLinear
from lora_runner.pack.options import PackOptions


def replace_modules(
    model: PreTrainedModel, context: PackContext, options: PackOptions
) -> tuple[list[PackedLinear], list[PackedSavedModule]]:
    """Replace linear, embedding and output layers in place; returns those that seats train, in model order.

    Raises ModelError when nothing matches `target_modules`, or a layer would be trained in two ways.
    """
    targets, saved = find_trained_modules(
        model,
        target_modules=options.target_modules,
        train_embeddings=options.train_embeddings,
        trainable_token_indices=options.trainable_token_indices,
    )
    output = model.get_output_embeddings()
    # The others too: for exactness, and because bitsandbytes' own layer has no gradient on a CPU in
    # evaluation mode.
    others = [
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear)
        and module is not output
        and name not in targets
        and not has_own_forward(module)  # called block by block instead
    ]
    resident = options.resident_weights
    linears = [_replace_linear(model, context, name, index, resident) for index, name in enumerate(targets)]
    for name in others:
        _replace_linear(model, context, name, None, resident)
    trained = _replace_saved(model, context, saved.names, saved.tied, targets)
    for module in trained if saved.token_indices else ():
        module.train_only(saved.token_indices)
    return linears, trained


def _replace_linear(
    model: PreTrainedModel, context: PackContext, name: str, index: int | None, resident: bool
) -> PackedLinear:
    base = model.get_submodule(name)
    if isinstance(base, Conv1D):
        raise ModelError(
            f"{name} keeps its weight transposed (Conv1D), which a pack trains only on a quantized base"
        )
    assert isinstance(base, nn.Linear)
    packed = PackedLinear(base, name, index, context, resident=resident)
    model.set_submodule(name, packed)
    return packed


def _replace_saved(
    model: PreTrainedModel, context: PackContext, trained: tuple[str, ...], tied: bool, targets: list[str]
) -> list[PackedSavedModule]:
    """Wrap trained embeddings, and always the output layer, so that it computes block by block."""
    output = model.get_output_embeddings()
    names = {id(module): name for name, module in model.named_modules()}
    wrapped = dict.fromkeys(trained)
    if output is not None and id(output) in names and names[id(output)] not in targets:
        wrapped[names[id(output)]] = None
    saved: list[PackedSavedModule] = []
    for name in wrapped:
        base = model.get_submodule(name)
        module: PackedSavedModule = (
            PackedEmbedding(base, name, context)
            if isinstance(base, nn.Embedding)
            else PackedHead(base, name, context)
        )
        model.set_submodule(name, module)
        if name in trained:
            saved.append(module)
    if tied:
        for module in saved[1:]:
            module.tied_to = saved[0].name
    return saved


def silence_dropout(model: PreTrainedModel) -> None:
    """Set every dropout probability of the base to 0, in modules and configuration."""
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    for holder in (*model.modules(), model.config):
        for name, value in vars(holder).items():
            if isinstance(value, float) and "drop" in name:
                setattr(holder, name, 0.0)


def train_checkpointed(model: PreTrainedModel) -> None:
    """Put modules that can checkpoint into training mode, the only one in which transformers does it.

    The others stay in evaluation mode: PhiMoE's routers draw random numbers in training mode.
    """
    silence_dropout(model)
    for module in model.modules():
        if hasattr(module, "gradient_checkpointing"):
            module.training = True


def keep_original_weights(model: PreTrainedModel) -> None:
    """Keep a model from changing its weights in evaluation mode, in which the base of a pack stays.

    RWKV halves them every few layers, against overflow in fp16, and quantizes 4-bit weights again.
    """
    if getattr(model.config, "rescale_every", 0):
        model.config.rescale_every = 0


class _HiddenState(BaseModelOutputWithPast):  # type: ignore[misc]  # transformers ships no types
    """A decoder's output whose other fields (router logits, attentions) are all None."""

    def __getattr__(self, name: str) -> None:
        if name.startswith("__"):
            raise AttributeError(name)


class _Identity(nn.Module):
    """Takes the decoder's place and returns its input as the hidden state."""

    def forward(self, *_: Any, inputs_embeds: torch.Tensor, **__: Any) -> _HiddenState:
        return _HiddenState(last_hidden_state=inputs_embeds)  # type: ignore[arg-type]


def split_model(model: PreTrainedModel) -> tuple[nn.Module, nn.Module]:
    """The decoder, and the model without it, which turns hidden states (`inputs_embeds`) into logits.

    So the logits of a few positions can be computed at a time, with whatever the model does after its output
    layer (soft caps, scales).
    """
    decoder = decoder_of(model)
    names = {id(module): name for name, module in model.named_modules()}
    head, path = _with_own_children(model), names[id(decoder)].split(".")
    holder: nn.Module = head
    for name in path[:-1]:
        inner = _with_own_children(getattr(holder, name))
        setattr(holder, name, inner)
        holder = inner
    setattr(holder, path[-1], _Identity())
    return decoder, head


def _with_own_children(module: nn.Module) -> nn.Module:
    """A second module with the same parameters and children, so that a child can be replaced."""
    twin = copy.copy(module)
    twin._modules = dict(module._modules)
    # accelerate, which spreads a base over devices, sets hooks on the instance that would call the original.
    for name in ("forward", "_old_forward", "_hf_hook"):
        twin.__dict__.pop(name, None)
    return twin
