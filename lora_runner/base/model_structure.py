"""The parts of a model: decoder, language model and its configuration."""

from __future__ import annotations

from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel


def decoder_of(model: PreTrainedModel) -> nn.Module:
    """The model without its output layer: token ids to hidden states.

    Some models return themselves as their decoder (Llama 4's language model, loaded without its vision
    tower); then it is the child that holds the embeddings.
    """
    decoder: nn.Module = model.get_decoder()
    if decoder is not model:
        return decoder
    embeddings: nn.Module = model.get_input_embeddings()  # type: ignore[operator]
    return next(child for child in model.children() if embeddings in child.modules())


def text_config(model: PreTrainedModel) -> PreTrainedConfig:
    """The configuration of the language model, which multimodal models nest one level down."""
    config: PreTrainedConfig = model.config.get_text_config(decoder=True)
    return config


def language_model_of(model: PreTrainedModel) -> nn.Module:
    """The part of a model that processes text: all of it, unless it is multimodal."""
    return model if text_config(model) is model.config else decoder_of(model)
