"""One update of one parameter group of a trial: its segment in the flat buffers and its hyperparameters."""

from __future__ import annotations

from dataclasses import dataclass

from lora_runner.optim.flat_buffers import BLOCK

CLIP_EPSILON = 1e-6
"""What torch.nn.utils.clip_grad_norm_ adds to a norm before it divides by it."""


@dataclass(frozen=True, kw_only=True)
class GroupStep:
    """The segment of one (seat, group), with the hyperparameters of this update.

    ValueError names the rule that a field breaks.
    """

    trial: int
    """Index from 0; the groups of one trial are clipped by their common norm."""
    start: int
    """Elements, a multiple of BLOCK."""
    stop: int
    """Elements, a multiple of BLOCK; padding is zero and stays zero."""
    learning_rate: float
    beta1: float
    beta2: float
    epsilon: float
    weight_decay: float
    max_grad_norm: float
    """0: no clipping."""
    step: int
    """Number of this update, from 1."""

    def __post_init__(self) -> None:
        if self.start % BLOCK or self.stop % BLOCK or not 0 <= self.start < self.stop:
            raise ValueError(
                f"a segment starts and stops at multiples of {BLOCK}, got {self.start} to {self.stop}"
            )
        if self.step < 1:
            raise ValueError(f"updates are counted from 1, got step {self.step}")

    @property
    def bias_corrections(self) -> tuple[float, float]:
        """1 - beta1^step and sqrt(1 - beta2^step), in double precision."""
        return 1.0 - self.beta1**self.step, (1.0 - self.beta2**self.step) ** 0.5
