"""What is fixed on both sides of the sweep benchmark."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Workload:
    """One sweep: the base, the data, a trial's budget and the range of its learning rate."""

    model: str
    train: str
    eval: str
    """JSON Lines of {"prompt", "completion"}; the whole file is the evaluation set."""
    trials: int
    train_embeddings: bool
    max_steps: int = 30
    evaluations: int = 3
    eval_examples: int = 64
    batch_size: int = 4
    eval_batch_size: int = 16
    max_length: int = 128
    lora_r: int = 16
    lora_alpha: int = 16
    lr_scheduler_type: str = "linear"
    warmup_ratio: float = 0.1
    max_grad_norm: float = 1.0
    learning_rate_low: float = 1e-4
    learning_rate_high: float = 2e-2
    seed: int = 0

    def described(self) -> str:
        """Return everything fixed, for a caption."""
        trained = "LoRA, embeddings and lm_head" if self.train_embeddings else "LoRA only"
        return (
            f"{self.trials} trials of {self.max_steps} steps on the demo's base and docstrings, {trained} "
            f"(r {self.lora_r}, all-linear), NF4 (computing in float32 on a CPU, bfloat16 on a GPU), batches "
            f"of {self.batch_size}, at most {self.max_length} tokens, {self.evaluations} evaluations on "
            f"{self.eval_examples} examples in batches of {self.eval_batch_size}, {self.lr_scheduler_type} "
            f"schedule with warmup over {self.warmup_ratio:g} of the steps, learning rate "
            f"{self.learning_rate_low:g} to {self.learning_rate_high:g} (log) drawn by TPE, no pruning"
        )
