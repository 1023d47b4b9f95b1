"""The base of a pack as transformers alone loads it, blocks of equal sequences, and what a step gave."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM

from lora_runner.base.load_model import nf4_config
from lora_runner.layout.pack_layout import Block
from lora_runner.pack.seat import PendingStats


def plain_nf4(model: str | Path, **options: Any) -> Any:
    """A causal LM in NF4 that computes in float32, without a pack."""
    return AutoModelForCausalLM.from_pretrained(
        model, quantization_config=nf4_config(torch.float32), dtype=torch.float32, **options
    )


def block_of(input_ids: Tensor, labels: Tensor) -> Block:
    """A block of token ids and labels (b, S), on their device."""
    return Block.of(list(zip(input_ids.tolist(), labels.tolist(), strict=True)), input_ids.device)


def figures(update: PendingStats) -> tuple[float, float]:
    """The loss and the gradient norm of an update."""
    stats = update.read()
    return stats.loss, stats.grad_norm
