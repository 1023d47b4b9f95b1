"""The sizes of a model's layers, for which ways to compute are checked."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from lora_runner.base.model_structure import text_config

SIBLINGS = (("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj"), ("w1", "w3"))
"""Usual names of layers that read the same input, which the fused path multiplies together.

For the sizes alone: which layers are siblings in a model is found when it is loaded."""


@dataclass(frozen=True, kw_only=True)
class ModelSizes:
    """Sizes of a language model's layers."""

    name: str
    linears: tuple[tuple[int, int], ...]
    """(in, out) of each frozen product: single layers and siblings side by side, without the output layer."""
    siblings: tuple[tuple[int, tuple[int, ...]], ...]
    """(in, (out, ...)) of layers that share an input, and of single ones."""
    hidden: int
    intermediate: int
    num_heads: int
    num_key_value_heads: int
    head_size: int
    vocabulary: int

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> ModelSizes:
        """Read what `dataclasses.asdict` made and JSON changed to lists."""
        return cls(
            **{
                **values,
                "linears": tuple((int(k), int(n)) for k, n in values["linears"]),
                "siblings": tuple((int(k), tuple(map(int, outs))) for k, outs in values["siblings"]),
            }
        )

    @classmethod
    def of_llama(
        cls, name: str, *, hidden: int, intermediate: int, heads: int, key_value_heads: int, vocabulary: int
    ) -> ModelSizes:
        """The sizes of a Llama."""
        size = hidden // heads
        attention = (hidden, (heads * size, key_value_heads * size, key_value_heads * size))
        return cls(
            name=name,
            **_products(
                {
                    attention,
                    (heads * size, (hidden,)),
                    (hidden, (intermediate, intermediate)),
                    (intermediate, (hidden,)),
                }
            ),
            hidden=hidden,
            intermediate=intermediate,
            num_heads=heads,
            num_key_value_heads=key_value_heads,
            head_size=size,
            vocabulary=vocabulary,
        )

    @classmethod
    def of_model(cls, model: PreTrainedModel, name: str) -> ModelSizes:
        """The sizes of a model, which may be on the meta device."""
        config = text_config(model)
        output = model.get_output_embeddings()
        found: dict[str, dict[str, tuple[int, int]]] = defaultdict(dict)
        for path, module in model.named_modules():
            if module is output or not isinstance(module, nn.Linear | Conv1D):
                continue
            parent, _, leaf = path.rpartition(".")
            rows, columns = module.weight.shape
            found[parent][leaf] = (columns, rows) if isinstance(module, nn.Linear) else (rows, columns)
        siblings = set()
        for layers in found.values():
            for names in SIBLINGS:
                if all(one in layers for one in names) and len({layers[one][0] for one in names}) == 1:
                    siblings.add((layers[names[0]][0], tuple(layers.pop(one)[1] for one in names)))
            siblings |= {(k, (n,)) for k, n in layers.values()}
        heads = int(getattr(config, "num_attention_heads", 1) or 1)
        hidden = int(config.hidden_size)
        return cls(
            name=name,
            **_products(siblings),
            hidden=hidden,
            intermediate=int(getattr(config, "intermediate_size", None) or 4 * hidden),
            num_heads=heads,
            num_key_value_heads=int(getattr(config, "num_key_value_heads", None) or heads),
            head_size=int(getattr(config, "head_dim", None) or hidden // heads),
            vocabulary=int(model.get_input_embeddings().weight.shape[0]),
        )


def _products(siblings: set[tuple[int, tuple[int, ...]]]) -> dict[str, Any]:
    singles = {(k, n) for k, outs in siblings for n in outs}
    return {
        "siblings": tuple(sorted(siblings)),
        "linears": tuple(sorted(singles | {(k, sum(outs)) for k, outs in siblings})),
    }


LLAMA_8B = ModelSizes.of_llama(
    "an 8B Llama", hidden=4096, intermediate=14336, heads=32, key_value_heads=8, vocabulary=128256
)
SMALL_LLAMA = ModelSizes.of_llama(
    "a 135M Llama", hidden=576, intermediate=1536, heads=9, key_value_heads=3, vocabulary=49152
)
"""What a CPU computes in seconds."""
