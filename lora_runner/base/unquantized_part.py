"""Which parameters of a base are not quantized, and how many."""

from __future__ import annotations

from collections import Counter

from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from lora_runner.base.quantization import Quantization

EMBEDDINGS, EXPERTS, LINEAR, REST = (
    "embeddings and output layer",
    "experts (fused parameters)",
    "other linear layers",
    "norms and the rest",
)
_FUSED_DIM = 3
"""Dimensions of a parameter that holds a matrix per expert."""


def unquantized_parameters(model: PreTrainedModel, quantization: Quantization) -> dict[str, int]:
    """Counts of parameters that stay in the compute dtype, by kind, largest first.

    bitsandbytes quantizes only linear layers, not experts fused into one parameter.
    """
    quantized = {id(module.weight) for module in quantization.layers(model).values()}
    ends = (model.get_input_embeddings(), model.get_output_embeddings())
    embeddings = {id(parameter) for end in ends if end is not None for parameter in end.parameters()}
    seen, found = set[int](), Counter[str]()
    for module in model.modules():
        linear = isinstance(module, nn.Linear | Conv1D)
        for parameter in module.parameters(recurse=False):
            if id(parameter) in quantized or id(parameter) in seen:
                continue
            seen.add(id(parameter))
            if id(parameter) in embeddings:
                kind = EMBEDDINGS
            elif parameter.dim() >= _FUSED_DIM:
                kind = EXPERTS if not isinstance(module, nn.modules.conv._ConvNd) else REST
            else:
                kind = LINEAR if linear and parameter.dim() > 1 else REST
            found[kind] += parameter.numel()
    return dict(found.most_common())
