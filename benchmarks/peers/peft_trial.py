"""A trial trained with transformers, peft and bitsandbytes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor
from transformers import PreTrainedModel

from benchmarks.training_steps.case import LEARNING_RATE, LORA_ALPHA, MAX_GRAD_NORM, Case, Sequences
from benchmarks.training_steps.random_llama import PAD


class PeftTrial:
    """LoRA on all linear layers of `model`, which is changed in place; torch's fused AdamW, clipping."""

    def __init__(self, case: Case, model: PreTrainedModel) -> None:
        self.case = case
        config = LoraConfig(
            task_type="CAUSAL_LM",
            r=case.rank,
            lora_alpha=LORA_ALPHA,
            lora_dropout=case.dropout,
            target_modules="all-linear",
            modules_to_save=["embed_tokens", "lm_head"] if case.train_embeddings else None,
            ensure_weight_tying=case.train_embeddings and case.shape.tied,
        )
        self.model = get_peft_model(model, config)
        self.model.train()
        self.trained = [p for p in self.model.parameters() if p.requires_grad]
        self.optimizer = torch.optim.AdamW(self.trained, lr=LEARNING_RATE, fused=True)

    def checkpoint(self, on: bool) -> None:
        """Turn gradient checkpointing on or off."""
        # Old names warn in new versions of transformers; new names do not exist in old ones.
        base, word = self.model.get_base_model(), "enable" if on else "disable"
        switch: Any = getattr(base, f"activation_checkpointing_{word}", None)
        switch = switch or getattr(base, f"gradient_checkpointing_{word}")
        switch(*[{"use_reentrant": False}] * on)
        if on:
            # Non-reentrant checkpointing needs no gradient of the input, which would cost one more layer.
            base.disable_input_require_grads()

    def batch(self, sequences: Sequences) -> dict[str, Tensor]:
        """Pad to the longest, as a collator does."""
        width = max(map(len, sequences))
        ids = torch.tensor([row + [PAD] * (width - len(row)) for row in sequences])
        real = torch.tensor([[int(i < len(row)) for i in range(width)] for row in sequences])
        batch = {"input_ids": ids, "labels": ids.masked_fill(real == 0, -100), "attention_mask": real}
        return {name: tensor.to(self.case.device) for name, tensor in batch.items()}

    def pass_(self, batch: dict[str, Tensor]) -> None:
        narrow = self.case.dtype != torch.float32
        # As Trainer with bf16=True: LoRA's products in bf16 on fp32 masters, as in the pack.
        with torch.autocast(self.case.device.type, self.case.dtype, enabled=narrow):
            loss = self.model(**batch).loss
        loss.backward()

    def update(self) -> None:
        torch.nn.utils.clip_grad_norm_(self.trained, MAX_GRAD_NORM)
        self.optimizer.step()
        self.optimizer.zero_grad()

    def steps(self, batches: Sequence[dict[str, Tensor]]) -> None:
        """Train one step of each trial, one after another."""
        for batch in batches:
            self.pass_(batch)
            self.update()
