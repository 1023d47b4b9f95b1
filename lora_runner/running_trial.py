"""A trial on its seat: its data, its stability watch, and when it reports."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch

from lora_runner.data import IGNORED, BatchPlan, TokenizedExample
from lora_runner.layout.pack_layout import Block
from lora_runner.pack.pack import MicroBatch
from lora_runner.pack.seat import PendingStats, Seat, StepStats
from lora_runner.protocol import Assignment
from lora_runner.stability import StabilityWatch


@dataclass(eq=False)
class RunningTrial:
    """A trial on its seat."""

    assignment: Assignment
    seat: Seat
    plan: BatchPlan
    watch: StabilityWatch
    report_steps: dict[int, int]  # step -> percent
    window: list[MicroBatch] = field(default_factory=list)
    """Micro-batches of the open accumulation window."""
    wall_seconds: float = 0.0
    last_stats: StepStats | None = None
    unread: list[PendingStats] = field(default_factory=list)
    """Updates whose loss and norm have not been read from the device."""
    checkpointed_at: float = field(default_factory=time.monotonic)
    checkpoint_step: int = 0
    """Steps that its checkpoint holds."""
    wants_checkpoint: bool = False

    @property
    def number(self) -> int:
        return self.assignment.number

    @property
    def folder(self) -> Path:
        return Path(self.assignment.folder)

    def next_micro_batch(self, device: torch.device) -> MicroBatch:
        """The micro-batch at the seat's position in the data."""
        accumulation = self.seat.config.gradient_accumulation_steps
        if not self.window:
            # An interrupted window starts over, so it is only ever made at its first micro-batch.
            first = self.seat.micro_step
            chosen = [self.plan.examples_at(first + i) for i in range(accumulation)]
            targets = sum(_num_predicted(example) for examples in chosen for example in examples)
            self.window = [
                MicroBatch(
                    block_of(examples, device), sum(len(e.input_ids) for e in examples), max(1, targets)
                )
                for examples in chosen
            ]
        return self.window[self.seat.micro_step % accumulation]

    def restart_window(self) -> None:
        """Drop an interrupted accumulation window; its micro-batches are computed again."""
        self.seat.restart_window()
        self.window = []

    def read(self, keep: int = 0) -> None:
        """Let the stability watch see all updates but the newest `keep`."""
        while len(self.unread) > keep:
            self.last_stats = self.unread.pop(0).read()
            self.watch.after_step(self.last_stats.step, self.last_stats.loss, self.last_stats.grad_norm)

    def memory_weight(self, vocabulary: int) -> int:
        """Bytes by which trials are compared when memory has run out: the seat's state and its logits."""
        longest = max((batch.block.input_ids.numel() for batch in self.window), default=0)
        return 16 * self.seat.num_trained + 4 * longest * vocabulary


def block_of(examples: Sequence[TokenizedExample], device: torch.device) -> Block:
    """Examples as one block."""
    return Block.of([(e.input_ids, e.labels) for e in examples], device)


def _num_predicted(example: TokenizedExample) -> int:
    """Targets a causal model can predict: a label on the first token has nothing before it."""
    return sum(label != IGNORED for label in example.labels[1:])
