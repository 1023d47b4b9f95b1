"""The optimizer's update of all trials at once: clipping by each trial's own norm, and AdamW."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import accumulate

import torch

from lora_runner.certificate.ways.case import Case, Setting, Tensors
from lora_runner.certificate.ways.references import rounding
from lora_runner.optim.adamw import clip_and_step, squared_norms
from lora_runner.optim.flat_buffers import BLOCK, FlatBuffers
from lora_runner.optim.group_step import CLIP_EPSILON, GroupStep

RATE, BETAS, EPSILON, DECAY, CLIP, STEP = 1e-3, (0.9, 0.999), 1e-8, 0.01, 1.0, 3

Prepared = tuple[FlatBuffers, list[GroupStep]]


class UpdateCase(Case):
    """A row is BLOCK elements; a block is a trial's parameters, gradient and two moments in fp32."""

    name = f"clipping and AdamW, {BLOCK} elements a row"

    def __init__(self, setting: Setting) -> None:
        self._setting = setting
        self.bound = rounding(torch.float32, 8)

    def draw(self, num_rows: int) -> Tensors:
        size = num_rows * BLOCK
        drawn = [self._setting.normal(size, dtype=torch.float32, scale=0.1) for _ in range(4)]
        return drawn[0], drawn[1], drawn[2], drawn[3].square()

    def prepare(self, blocks: Sequence[Tensors]) -> Prepared:
        stops = list(accumulate(len(block[0]) for block in blocks))
        groups = [
            GroupStep(
                trial=trial,
                start=start,
                stop=stop,
                learning_rate=RATE,
                beta1=BETAS[0],
                beta2=BETAS[1],
                epsilon=EPSILON,
                weight_decay=DECAY,
                max_grad_norm=CLIP,
                step=STEP,
            )
            for trial, (start, stop) in enumerate(zip([0, *stops], stops, strict=False))
        ]
        return FlatBuffers(*(torch.cat(parts) for parts in zip(*blocks, strict=True))), groups

    def compute(self, prepared: Prepared) -> FlatBuffers:
        buffers, groups = prepared
        norms = squared_norms(buffers, groups, len(groups)).sqrt_()
        clip_and_step(buffers, groups, norms)
        return buffers

    def results(self, prepared: Prepared, computed: FlatBuffers) -> list[Tensors]:
        changed = computed.parameters, computed.exp_avg, computed.exp_avg_sq
        return [tuple(x[group.start : group.stop] for x in changed) for group in prepared[1]]

    def reference(self, block: Tensors) -> Tensors:
        parameters, gradient, first, second = (x.double() for x in block)
        gradient = gradient * torch.clamp(CLIP / (gradient.norm() + CLIP_EPSILON), max=1.0)
        first = BETAS[0] * first + (1 - BETAS[0]) * gradient
        second = BETAS[1] * second + (1 - BETAS[1]) * gradient.square()
        corrected = (second / (1 - BETAS[1] ** STEP)).sqrt() + EPSILON
        step = RATE / (1 - BETAS[0] ** STEP) * first / corrected
        return parameters * (1 - RATE * DECAY) - step, first, second

    def work(self, num_rows: int) -> float:
        # The norm reads the gradient; the update reads four buffers and writes three.
        return 8.0 * 4 * BLOCK * num_rows


def for_all_trials(setting: Setting) -> Iterator[Case]:
    """As every pack."""
    yield UpdateCase(setting)
