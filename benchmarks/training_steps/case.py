"""What is fixed on both sides of a training-step benchmark, and the pack's trials."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from benchmarks.training_steps.machines import GENERAL, certified_machine
from benchmarks.training_steps.random_llama import Shape, random_base
from lora_runner.config import TrialConfig
from lora_runner.fused.compute_path import Machine
from lora_runner.kernels.frozen_product import use_way
from lora_runner.layout.pack_layout import Block
from lora_runner.pack.options import PackOptions
from lora_runner.pack.pack import MicroBatch, Pack
from lora_runner.pack.seat import Seat

BATCH_SIZE = 4
MAX_GRAD_NORM = 1.0
LORA_ALPHA = 16
LEARNING_RATE = 2e-4
MEDIAN_SHARE = 0.45
"""Median length of a sequence over the longest allowed, roughly as in truncated texts."""
Sequences = list[list[int]]


@dataclass(frozen=True, kw_only=True)
class Case:
    """What is fixed in one table."""

    shape: Shape
    num_tokens: int
    """Of a trial's micro-batch if all sequences had the longest length."""
    device: torch.device
    dtype: torch.dtype
    rank: int = 16
    dropout: float = 0.0
    train_embeddings: bool = False
    """Whether each trial trains its own copy of embeddings and output layer."""
    checkpointing: bool = False
    """Gradient checkpointing in the pack."""
    resident: bool = False
    """Whether the pack keeps the dequantized base."""
    graphs: bool = True
    """Whether the pack captures its passes in CUDA graphs, where it takes the fused path."""
    fused: bool = True
    """Whether the pack may take the fused path."""
    certified: bool = False
    """Whether this machine's certificate decides, as in a sweep, where there is one for the shape."""

    @property
    def longest(self) -> int:
        return self.num_tokens // BATCH_SIZE

    @property
    def title(self) -> str:
        trained = ", embeddings trained" if self.train_embeddings else ""
        return f"{self.shape.name}, {BATCH_SIZE} sequences of up to {self.longest} tokens a trial{trained}"

    def sequences(self, trial: int, *, equal: bool = False) -> Sequences:
        """A trial's micro-batch; lengths are lognormal and truncated, as in text, or all the longest."""
        generator = torch.Generator().manual_seed(trial)
        spread = torch.randn(BATCH_SIZE, generator=generator).mul(0.7).exp() * MEDIAN_SHARE * self.longest
        lengths = [self.longest if equal else min(self.longest, max(2, int(n))) for n in spread]
        top = self.shape.vocabulary
        return [torch.randint(1, top, (n,), generator=generator).tolist() for n in lengths]

    def num_real(self, seats: int) -> int:
        """Tokens, without padding, in the micro-batches of that many trials."""
        return sum(len(row) for trial in range(seats) for row in self.sequences(trial))

    def options(self) -> PackOptions:
        return PackOptions(
            train_embeddings=self.train_embeddings,
            gradient_checkpointing=self.checkpointing,
            resident_weights=self.resident,
            graphs=self.graphs,
        )

    def new_pack(self) -> Pack:
        """An empty pack on its own base."""
        # The product over all rows is the device's; the pack chooses it again if a certificate names one.
        use_way(self.device, self.dtype, None)
        return Pack(random_base(self.shape, self.device, self.dtype), self.options(), self.machine())

    def machine(self) -> Machine:
        """What decides about the pack's path."""
        if not self.fused:
            return GENERAL
        if self.certified:
            return certified_machine(self.shape, self.device, self.dtype)
        return Machine.of(self.device, self.dtype)


class PackTrials:
    """The trials of a case on the seats of a pack; they keep the seats alive."""

    def __init__(self, case: Case, num_seats: int, pack: Pack) -> None:
        self.case, self.pack = case, pack
        self.seats: list[Seat] = [
            pack.new_seat(self.trial(i), seats_to_come=num_seats - i - 1) for i in range(num_seats)
        ]

    def trial(self, index: int) -> TrialConfig:
        return TrialConfig(
            learning_rate=LEARNING_RATE,
            embedding_learning_rate=LEARNING_RATE / 4 if self.case.train_embeddings else None,
            lr_scheduler_type="constant",
            max_steps=10**6,
            per_device_train_batch_size=BATCH_SIZE,
            weight_decay=0.01,
            max_grad_norm=MAX_GRAD_NORM,
            lora_r=self.case.rank,
            lora_alpha=LORA_ALPHA,
            lora_dropout=self.case.dropout,
            seed=index,
        )

    def batches(self, batches: Sequence[Sequences] | None = None) -> dict[Seat, MicroBatch]:
        """A micro-batch for every seat, by default the case's."""
        drawn = [self.case.sequences(i) for i in range(len(self.seats))] if batches is None else batches
        blocks = [Block.of([(row, row) for row in rows], self.case.device) for rows in drawn]
        return {
            seat: MicroBatch(block, block.num_tokens, block.num_targets)
            for seat, block in zip(self.seats, blocks, strict=True)
        }


def free_memory(pack: Pack) -> None:
    """Free what trials that have left took of `pack`, which captures the passes of the next ones again."""
    pack.release_memory()
    pack.resume_capturing()
