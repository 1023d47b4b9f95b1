"""How much memory a pack needs, and so how many seats fit.

A model of the peak: base + resident copy + seats · (16 B per trained parameter + activations + logits).
Coefficients per token come from the shapes of a transformer's forward pass; they are estimates, stated as
such by `plan`.
"""

from __future__ import annotations

from dataclasses import dataclass

import psutil
import torch
from transformers.pytorch_utils import Conv1D

from lora_runner.models import BaseSpec, find_saved, find_targets, meta_model, resolve_dtype

NF4_BYTES = 0.52
"""Bytes per quantised parameter: half a byte, plus 8-bit block scales (one per 64) with nested scales."""
TRAINED_BYTES = 16
"""Bytes per trained parameter: fp32 master, gradient and two moments."""
LOGIT_BYTES = 12
"""Bytes per predicted position and vocabulary entry: logits, their fp32 copy, and the gradient."""
RESERVE = 0.85
"""Share of the device's memory that is planned for."""


@dataclass(frozen=True)
class MemoryEstimate:
    """Peak memory of a pack in bytes: `base + seats * per_seat`."""

    base: float
    per_seat: float
    available: float

    def total(self, seats: int) -> float:
        return self.base + seats * self.per_seat

    def max_seats(self) -> int:
        """Seats that fit into the planned share of the memory; 0 when not even one does."""
        return max(0, int((self.available * RESERVE - self.base) // self.per_seat))


def estimate(
    spec: BaseSpec,
    *,
    target_modules: str | tuple[str, ...],
    train_embeddings: bool | tuple[str, ...],
    lora_r: int,
    batch_size: int,
    length: int,
    gradient_checkpointing: bool,
    resident_weights: bool = False,
    available: float | None = None,
) -> MemoryEstimate:
    """Estimate a pack's peak from the model's configuration; `length` is the longest sequence in tokens."""
    model = meta_model(spec)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    width = resolve_dtype(spec.compute_dtype, device).itemsize
    targets = [model.get_submodule(name) for name in find_targets(model, target_modules)]
    quantised, output = spec.quantization == "nf4", model.get_output_embeddings()
    frozen = [
        m.weight.numel()
        for m in model.modules()
        if isinstance(m, torch.nn.Linear | Conv1D) and m is not output
    ]
    linear = sum(frozen)
    total = sum(p.numel() for p in {id(p): p for p in model.parameters()}.values())
    base = linear * (NF4_BYTES if quantised else width) + (total - linear) * width
    if quantised:
        # Dequantised weights: of one layer at a time, or of all of them when they stay.
        base += width * (linear if resident_weights else max(frozen, default=0))

    trained = sum(lora_r * sum(m.weight.shape) for m in targets)
    saved = find_saved(model, train_embeddings)
    copies = {id(model.get_submodule(name).weight): model.get_submodule(name).weight for name in saved.names}
    trained += sum(weight.numel() for weight in copies.values())

    config = model.config.get_text_config()
    layers, hidden = config.num_hidden_layers, config.hidden_size
    # What autograd keeps per token and layer: each target's input (and its fp32 copy), and the elementwise
    # chain.
    kept = (
        sum(_in_features(m) for m in targets) * (width + (4 if width < 4 else 0))
        + 12 * hidden * width * layers
    )
    if gradient_checkpointing:
        kept = hidden * width * layers + kept / layers
    tokens = batch_size * length
    per_seat = trained * TRAINED_BYTES + tokens * kept + tokens * config.vocab_size * LOGIT_BYTES
    return MemoryEstimate(base, per_seat, available if available is not None else available_memory(device))


def _in_features(module: torch.nn.Module) -> int:
    weight: torch.Tensor = module.weight  # type: ignore[assignment]
    return int(weight.shape[0 if isinstance(module, Conv1D) else 1])


def available_memory(device: torch.device) -> float:
    """Bytes a pack may plan with: the GPU's total, or the machine's free memory on CPU."""
    if device.type == "cuda":
        return float(torch.cuda.get_device_properties(device).total_memory)
    return float(psutil.virtual_memory().available)
