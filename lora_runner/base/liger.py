"""Liger's fused kernels for norms, activations and rotary embeddings, where it is installed."""

from __future__ import annotations

import sys
from copy import copy
from typing import Any

import torch
from transformers import PreTrainedModel
from transformers.integrations.liger import apply_liger_kernel
from transformers.utils import is_liger_kernel_available

ROTARY = "apply_rotary_pos_emb"
"""What transformers' modules call their function of rotary embeddings."""


def use_liger(model: PreTrainedModel, device: torch.device) -> str:
    """Patch a model with Liger's Triton kernels on CUDA; returns what was done, as text.

    Called when a pack is made: only then it is known whether the fused path computes these parts. A row's
    result does not depend on the others, so a pack stays exact. Liger's loss is not used: it would average
    over the trials of a pack. Rotary embeddings are patched for the whole Python module, as Liger does
    it.
    """
    if device.type != "cuda":
        return f"transformers' own layers: Liger's kernels need CUDA, the device is {device.type}"
    if not is_liger_kernel_available():
        return "transformers' own layers: liger-kernel is not installed"
    if len({parameter.device for parameter in model.parameters()}) > 1:
        return "transformers' own layers: Liger's kernels run on one device, the base is spread over several"
    holder = sys.modules[type(model).__module__]
    rotary: Any = getattr(holder, ROTARY, None)
    apply_liger_kernel(model, {"cross_entropy": False, "fused_linear_cross_entropy": False})
    if hasattr(rotary, "own"):
        # Put there for another pack (`fused/rotary.py`); outside of that pack's passes it calls Liger's. A
        # copy: whoever puts the function of before back gets what it was.
        rotary = copy(rotary)
        rotary.own = getattr(holder, ROTARY)
        setattr(holder, ROTARY, rotary)
    for module in model.modules():
        if hasattr(module, "row_mode"):
            # By default norms of up to 256 columns (those of heads) take another kernel from 32,768 rows on.
            module.row_mode = True
    return "Liger's norms, activations and rotary embeddings, where it knows the model"
