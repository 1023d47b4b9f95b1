"""Configurations of three very different trials."""

from __future__ import annotations

from lora_runner.config import TrialConfig

CONFIGS = [
    TrialConfig(
        learning_rate=2e-2,
        embedding_learning_rate=5e-3,
        lr_scheduler_type="cosine",
        warmup_steps=1,
        max_steps=10,
        per_device_train_batch_size=4,
        lora_r=8,
        lora_alpha=16,
        lora_dropout=0.1,
        seed=1,
    ),
    TrialConfig(
        learning_rate=5e-3,
        embedding_learning_rate=1e-3,
        lr_scheduler_type="constant",
        max_steps=6,
        per_device_train_batch_size=3,
        gradient_accumulation_steps=2,
        lora_r=4,
        lora_alpha=4,
        weight_decay=0.1,
        seed=2,
    ),
    TrialConfig(
        learning_rate=1e-2,
        embedding_learning_rate=0.0,
        max_steps=4,
        per_device_train_batch_size=2,
        lora_r=2,
        lora_alpha=8,
        use_rslora=True,
        seed=3,
    ),
]
