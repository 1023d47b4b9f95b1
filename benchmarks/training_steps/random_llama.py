"""Llamas of known shapes with random NF4 weights, made on the device: no download, no full copy."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, cast

import torch
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel, PreTrainedTokenizerBase

from lora_runner.base.host_memory import keep_freed_memory
from lora_runner.base.load_model import Base, BaseSpec
from sweeps.demo.base_model import BaseRecipe

PAD = 0


@dataclass(frozen=True)
class Shape:
    """A Llama's sizes."""

    name: str
    hidden: int
    intermediate: int
    layers: int
    heads: int
    key_value_heads: int
    vocabulary: int
    tied: bool

    def config(self) -> LlamaConfig:
        return LlamaConfig(
            vocab_size=self.vocabulary,
            hidden_size=self.hidden,
            intermediate_size=self.intermediate,
            num_hidden_layers=self.layers,
            num_attention_heads=self.heads,
            num_key_value_heads=self.key_value_heads,
            max_position_embeddings=8192,
            tie_word_embeddings=self.tied,
            bos_token_id=None,
            eos_token_id=PAD,
            pad_token_id=PAD,
            use_cache=False,
        )

    def linear_layers(self) -> Iterator[tuple[str, int, int]]:
        """(name, in, out) of a decoder layer's linear layers."""
        key_value = self.hidden * self.key_value_heads // self.heads
        for name, out in (("q", self.hidden), ("k", key_value), ("v", key_value), ("o", self.hidden)):
            yield name, self.hidden, out
        yield "gate", self.hidden, self.intermediate
        yield "up", self.hidden, self.intermediate
        yield "down", self.intermediate, self.hidden


_DEMO = BaseRecipe()
SHAPES = {
    shape.name: shape
    for shape in (
        # name, hidden, intermediate, layers, heads, key_value_heads, vocabulary, tied
        Shape(
            "demo",
            _DEMO.hidden_size,
            _DEMO.intermediate_size,
            _DEMO.num_hidden_layers,
            _DEMO.num_attention_heads,
            _DEMO.num_key_value_heads,
            _DEMO.vocab_size,
            False,
        ),
        Shape("smollm2-135m", 576, 1536, 30, 9, 3, 49152, True),
        Shape("llama-3.2-1b", 2048, 8192, 16, 32, 8, 128256, True),
        Shape("llama-3.1-8b", 4096, 14336, 32, 32, 8, 128256, False),
    )
}


def random_model(shape: Shape, device: torch.device, dtype: torch.dtype) -> PreTrainedModel:
    """Return the frozen model on `device`; linear layers but the last in NF4 with double quantization."""
    from bitsandbytes.nn import Linear4bit, Params4bit

    config = shape.config()
    with torch.device("meta"):
        model = LlamaForCausalLM(config).to(dtype)
    generator = torch.Generator(device).manual_seed(0)

    def draw(*size: int) -> torch.Tensor:
        return torch.randn(size, generator=generator, device=device, dtype=dtype).mul_(0.02)

    output = model.get_output_embeddings()
    for name, module in list(model.named_modules()):
        if isinstance(module, nn.Linear) and module is not output:
            layer = Linear4bit(
                module.in_features,
                module.out_features,
                bias=False,
                compute_dtype=dtype,
                quant_type="nf4",
                device="meta",
            )
            weight = draw(module.out_features, module.in_features)
            layer.weight = Params4bit(weight, requires_grad=False, quant_type="nf4", module=layer).to(device)
            model.set_submodule(name, layer)
        elif isinstance(module, nn.Linear | nn.Embedding):
            module.weight = nn.Parameter(draw(*module.weight.shape))
        elif isinstance(getattr(module, "weight", None), nn.Parameter):  # a norm
            module.weight = nn.Parameter(torch.ones(module.weight.shape, device=device, dtype=dtype))
    model.tie_weights()
    # Its frequencies are buffers computed in __init__, which the meta device has not done.
    with torch.device(device):
        model.model.rotary_emb = type(model.model.rotary_emb)(config=config)
    model.is_loaded_in_4bit = True  # where peft looks
    model.requires_grad_(False)
    return cast(PreTrainedModel, model.eval())


def random_base(shape: Shape, device: torch.device, dtype: torch.dtype) -> Base:
    """The same model as the base of a pack, as from `load_base`."""
    if device.type == "cpu":
        keep_freed_memory()
    model = random_model(shape, device, dtype)
    return Base(
        model=model,
        tokenizer=cast(PreTrainedTokenizerBase, SimpleNamespace(pad_token_id=PAD, eos_token_id=PAD)),
        spec=BaseSpec(model=shape.name),
        compute_dtype=dtype,
        device=device,
        num_parameters=num_parameters(model),
    )


def num_parameters(model: Any) -> int:
    """Return the parameters before quantization: NF4 stores two in a byte."""
    return sum(p.numel() * (2 if hasattr(p, "quant_state") else 1) for p in model.parameters())
