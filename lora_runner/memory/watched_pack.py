"""A pack that counts the bytes alive in each phase of a training step."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from lora_runner.base.load_model import Base
from lora_runner.fused.compute_path import Machine
from lora_runner.layers.linear import RowOwners
from lora_runner.layout.pack_layout import Layout
from lora_runner.memory.meta_device import LiveBytes
from lora_runner.pack.options import PackOptions
from lora_runner.pack.pack import MicroBatch, Pack
from lora_runner.pack.seat import Seat


@dataclass
class StepBytes:
    """Bytes alive in a training step beyond those before it: the most in each phase."""

    forward: int = 0
    loss: int = 0
    """While logits are made and their gradients computed."""
    backward: int = 0
    """0 where no decoder layer is trained."""
    kept: int = 0
    """Alive between the forward pass and the loss."""
    hidden: int = 0
    """Of the hidden states that the loss is computed from."""

    @property
    def peak(self) -> int:
        return max(self.forward, self.loss, self.backward)


class WatchedPack(Pack):
    """A pack on the meta device, made and used inside `live`."""

    def __init__(self, base: Base, options: PackOptions, machine: Machine, live: LiveBytes) -> None:
        self._live = live
        self._before = 0
        self._step = StepBytes()
        super().__init__(base, options, machine)

    def watched_step(self, batches: Mapping[Seat, MicroBatch]) -> StepBytes:
        """A micro-step, counted."""
        with self._live.watch():
            self._before, self._step = self._live.live, StepBytes()
            self.micro_step(batches)
            rest = self._take_peak()
        if self._step.loss:
            self._step.backward = rest
        else:
            self._step.loss = rest
        return self._step

    @contextmanager
    def forward_pass(
        self, seats: Sequence[Seat | None], layout: Layout, **options: Any
    ) -> Iterator[tuple[Tensor, RowOwners]]:
        """As `Pack.forward_pass`."""
        with super().forward_pass(seats, layout, **options) as (hidden, rows):
            step = self._step
            step.forward = max(step.forward, self._take_peak())
            step.kept = self._live.live - self._before
            step.hidden = hidden.nbytes
            if hidden.requires_grad:
                hidden.register_hook(self._loss_is_computed)
            yield hidden, rows

    def _loss_is_computed(self, _: Tensor) -> None:
        self._step.loss = max(self._step.loss, self._take_peak())

    def _take_peak(self) -> int:
        return self._live.take_peak() - self._before
