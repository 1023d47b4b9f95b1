"""What all seats of a pack share; without torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class PackOptions:
    """Which layers are trained, and how a pack trades memory for time."""

    target_modules: str | tuple[str, ...] = "all-linear"
    train_embeddings: bool | tuple[str, ...] = False
    trainable_token_indices: tuple[int, ...] = ()
    """Train only the embedding rows of these token ids, instead of `train_embeddings`; as in peft, a tied
    output layer's rows too."""
    gradient_checkpointing: bool = False
    resident_weights: bool = False
    """Keep the dequantized base in memory: the same numbers, without dequantizing in every pass."""
    graphs: bool = True
    """Capture passes as CUDA graphs where the fused path is taken (`graphs/captured_decoder.py`)."""
    embedding_optimizer_bits: Literal[32, 8] = 32
    """8 keeps the moments of trained embeddings in bitsandbytes' 8 bits (`optim/adamw_8bit.py`)."""
