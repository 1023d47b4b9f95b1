"""Bytes of a base and of a seat's state from their shapes, and rough coefficients for a pass."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Literal

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from lora_runner.base.load_model import num_parameters_of, vocabulary_size
from lora_runner.base.model_structure import text_config
from lora_runner.base.quantization import NF4, Quantization
from lora_runner.base.target_modules import find_target_modules, find_trained_modules
from lora_runner.graphs.buckets import padded_rows
from lora_runner.layout.pack_layout import padded_length
from lora_runner.optim.adamw_8bit import ABSMAX_BLOCK, CHUNK
from lora_runner.optim.flat_buffers import BLOCK
from lora_runner.pack.options import PackOptions
from lora_runner.pack.packed_model import max_logits
from lora_runner.pack.seat import RANK_MULTIPLE

NF4_BYTES = NF4.bytes_of(torch.Size((1, 1)))
"""Bytes per quantized parameter: half a byte, an 8-bit scale per block, an fp32 scale per block of those."""
BUFFER_BYTES, TRAINED_BYTES = 4, 16
"""Bytes per trained parameter in one buffer, and in all four: fp32 master, gradient, two moments."""
TRAINED_8BIT_BYTES = 2 * BUFFER_BYTES + 2 * (1 + 4 / ABSMAX_BLOCK)
"""The same with moments in 8 bits and an fp32 scale per block."""
UPDATE_8BIT_BYTES = 20
"""Transient bytes per element of bitsandbytes 0.50's update on a CPU (measured): fp32 copies of both moments,
and what it computes from them."""


@dataclass(frozen=True, kw_only=True)
class Workload(PackOptions):
    """The options of a pack, and what every seat trains and computes, at most."""

    lora_r: int
    lora_dropout: float = 0.0
    batch_size: int
    """Sequences of a seat's micro-batch."""
    length: int
    """Tokens of each sequence; the mean if they differ, since the cost follows their sum."""
    eval_batch_size: int = 0
    """Sequences that every seat evaluates at a time; 0: no evaluation."""
    eval_length: int = 0
    """Tokens of each of them."""
    num_prompts: int = 0
    """Prompts that every seat answers at a time; 0: none."""
    prompt_length: int = 0
    """Tokens of the longest of them."""
    max_new_tokens: int = 0
    """Tokens of an answer."""

    def options(self) -> PackOptions:
        """The options of the pack alone."""
        return PackOptions(**{each.name: getattr(self, each.name) for each in fields(PackOptions)})


def cache_bytes(model: PreTrainedModel, workload: Workload, width: int) -> int:
    """Keys and values of a seat's answers, in `width` bytes each, as `KeyValueCache` keeps them.

    The layer that attends holds two more copies: one taken out of the buffers, one expanded to all heads.
    """
    if not workload.num_prompts:
        return 0
    config = model.config.get_text_config()
    heads = int(config.num_attention_heads)
    shared = int(getattr(config, "num_key_value_heads", None) or heads)
    size = int(getattr(config, "head_dim", None) or config.hidden_size // heads)
    room = padded_length(workload.prompt_length + workload.max_new_tokens)
    one_layer = 2 * size * width * room * workload.num_prompts
    return one_layer * (shared * (int(config.num_hidden_layers) + 1) + heads)


@dataclass(frozen=True)
class CapturedBytes:
    """Bytes of a training step whose passes are captured as CUDA graphs."""

    reserved: int
    """What a pass through the decoder takes, which stays reserved between steps."""
    beside: int
    """The most that is alive beside it: logits and their gradients."""


@dataclass(frozen=True)
class SeatState:
    """A seat's own state: parameters, gradients and moments, by parameter group."""

    lora: int
    """Elements, rounded up to whole blocks."""
    embeddings: int
    bits: Literal[32, 8]
    """Bits of the embeddings' moments."""

    @property
    def num_bytes(self) -> int:
        each = TRAINED_8BIT_BYTES if self.bits == 8 else TRAINED_BYTES
        return TRAINED_BYTES * self.lora + round(each * self.embeddings)

    def filling(self, seats: int) -> int:
        """Bytes beyond those of `seats` seats while the last one is allocated.

        Its last group makes each buffer grow in turn, and one of them exists twice.
        """
        if self.bits == 8:  # the groups have buffers of their own
            return BUFFER_BYTES * (seats - 1) * max(self.lora, self.embeddings)
        return BUFFER_BYTES * (seats * (self.lora + self.embeddings) - (self.embeddings or self.lora))

    def updating(self, device: torch.device) -> int:
        """Bytes beyond those of the seats while they are updated one after another."""
        in_8bit = self.bits == 8 and device.type == "cpu"
        return UPDATE_8BIT_BYTES * min(self.embeddings, CHUNK) if in_8bit else 0


def base_bytes(model: PreTrainedModel, width: int, quantization: Quantization, *, resident: bool) -> int:
    """The frozen weights, `width` bytes per element in the compute dtype, with the resident copy if any."""
    kept = [_shape(module) for module in quantization.layers(model).values()]
    quantized = sum(shape.numel() for shape in kept)
    total = num_parameters_of(model)
    stored = sum(quantization.bytes_of(shape) for shape in kept)
    return round(stored) + (total - (0 if resident else quantized)) * width


def seat_state(model: PreTrainedModel, workload: Workload) -> SeatState:
    """A seat's state on this model; ModelError when nothing matches `target_modules`."""
    rank = -(-workload.lora_r // RANK_MULTIPLE) * RANK_MULTIPLE
    per_rank, embeddings = _trained_elements(model, workload)
    lora, embeddings = (-(-size // BLOCK) * BLOCK for size in (rank * per_rank, embeddings))
    return SeatState(lora, embeddings, workload.embedding_optimizer_bits)


def checkpoint_bytes(model: PreTrainedModel, workload: Workload) -> tuple[int, int]:
    """Bytes of a trial's checkpoint: for each unit of its LoRA rank, and of its trained embeddings."""
    per_rank, embeddings = _trained_elements(model, workload)
    is_8bit = workload.embedding_optimizer_bits == 8
    each = TRAINED_8BIT_BYTES if is_8bit else TRAINED_BYTES
    # Everything but the gradients.
    return (TRAINED_BYTES - BUFFER_BYTES) * per_rank, round((each - BUFFER_BYTES) * embeddings)


def _trained_elements(model: PreTrainedModel, workload: Workload) -> tuple[int, int]:
    """Elements of the adapters for each unit of the rank, and of the trained embeddings."""
    targets, saved = find_trained_modules(
        model,
        target_modules=workload.target_modules,
        train_embeddings=workload.train_embeddings,
        trainable_token_indices=workload.trainable_token_indices,
    )
    per_rank = sum(sum(_weight(model.get_submodule(name)).shape) for name in targets)
    trained = [_weight(model.get_submodule(name)) for name in saved.names]
    once = {id(weight): weight for weight in trained}  # tied ones are one weight
    return per_rank, sum(len(saved.token_indices or w) * w.shape[1] for w in once.values())


def _weight(module: nn.Module) -> Tensor:
    weight: Tensor = module.weight  # type: ignore[assignment]
    return weight


def _shape(module: nn.Module) -> torch.Size:
    """Shape of a linear layer's weight, as (out, in)."""
    shape = _weight(module).shape
    return torch.Size(reversed(shape)) if isinstance(module, Conv1D) else shape


@dataclass(frozen=True)
class Coefficients:
    """A rough estimate of a pass from a decoder's sizes."""

    held: int
    """Bytes independent of tokens: the largest dequantized weight."""
    saved: int
    """Bytes per token kept for the backward pass."""
    inside: int
    """Bytes per token while one layer computes."""
    vocabulary: int
    max_logits: int
    """Elements of logits held at once."""

    @classmethod
    def of(
        cls,
        model: PreTrainedModel,
        workload: Workload,
        dtype: torch.dtype,
        quantization: Quantization,
        device: torch.device,
    ) -> Coefficients:
        """`quantization` is that of weights dequantized in every pass."""
        config, width = text_config(model), dtype.itemsize
        targets = find_target_modules(model, workload.target_modules)
        inputs = sum(min(_weight(model.get_submodule(name)).shape) for name in targets) * width
        layers = int(config.num_hidden_layers)
        # Beside each target's input: norms and their fp32 copies, rotated heads, the gate.
        layer = inputs // layers + 10 * int(config.hidden_size) * width
        quantized = quantization.layers(model).values()
        largest = max((_weight(module).numel() for module in quantized), default=0)
        return cls(
            held=largest * width,
            saved=layers * (int(config.hidden_size) * width if workload.gradient_checkpointing else layer),
            inside=layer,
            vocabulary=vocabulary_size(model),
            max_logits=max_logits(device.type),
        )

    def train(self, seats: int, batch_size: int, length: int) -> int:
        """As `DryRun`."""
        tokens = seats * batch_size * length
        return self.held + tokens * (self.saved + self.inside) + self._logits(tokens, 12)

    def captured(self, seats: int, batch_size: int, length: int) -> CapturedBytes:
        """As `DryRun`."""
        tokens = seats * batch_size * length
        return CapturedBytes(
            self.held + padded_rows(tokens) * (self.saved + self.inside), self._logits(tokens, 12)
        )

    def evaluate(self, seats: int, batch_size: int, length: int) -> int:
        """As `DryRun`."""
        tokens = seats * batch_size * length
        return self.held + tokens * self.inside + self._logits(tokens, 8)

    def _logits(self, tokens: int, bytes_each: int) -> int:
        """Logits, their log-softmax and, in training, the gradient, of one chunk of predicting positions."""
        return min(tokens * self.vocabulary, self.max_logits) * bytes_each
