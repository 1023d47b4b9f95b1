"""Where in a model the parts stand that a pack treats apart."""

from __future__ import annotations

from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel


def decoder_of(model: PreTrainedModel) -> nn.Module:
    """The layers that make hidden states of token ids, without the output layer.

    Some models name themselves when they are asked (Llama 4's language model, loaded without its vision
    tower); then it is the child that holds the embeddings.
    """
    decoder: nn.Module = model.get_decoder()
    if decoder is not model:
        return decoder
    embeddings: nn.Module = model.get_input_embeddings()  # type: ignore[operator]
    return next(child for child in model.children() if embeddings in child.modules())


def text_config(model: PreTrainedModel) -> PreTrainedConfig:
    """Sizes of the language model: a model that also sees or hears keeps them one level down."""
    config: PreTrainedConfig = model.config.get_text_config(decoder=True)
    return config


def language_model_of(model: PreTrainedModel) -> nn.Module:
    """The part of a model that text goes through: all of it, unless it also sees or hears."""
    return model if text_config(model) is model.config else decoder_of(model)
