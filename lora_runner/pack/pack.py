"""A pack: several trials trained side by side on one frozen base.

One forward and one backward pass serve a micro-batch of every seat. A seat steps when its own accumulation
window is full; nothing of a neighbour (its end, its rank, its NaN) changes another seat's numbers. A pack of
one seat is a plain QLoRA fine-tune: there is no other training loop.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor

from lora_runner.base.load_model import Base
from lora_runner.config import TrialConfig
from lora_runner.errors import ModelError, TrialConfigError
from lora_runner.fused.compute_path import Machine
from lora_runner.layout.device_copies import to_device
from lora_runner.layout.pack_layout import Block, Layout
from lora_runner.optim.adamw import clip_and_step, squared_norms
from lora_runner.optim.flat_buffers import SegmentAllocator
from lora_runner.optim.group_step import GroupStep
from lora_runner.pack.generation import TextGenerator
from lora_runner.pack.options import PackOptions
from lora_runner.pack.packed_model import PackedModel
from lora_runner.pack.record_sums import Evaluation, RecordSums, evaluations
from lora_runner.pack.seat import EMBEDDINGS, LORA, PendingStats, Seat, SegmentKey

STEPS_BETWEEN_LACKS = 1000
"""Training steps, from one that ran out of memory beside captured passes to the next, that pay for a capture.

And so many that all windows of gradient accumulation that had to begin anew have ended.
"""
NO_MEMORY_TO_CAPTURE = "memory ran out beside captured passes"
T = TypeVar("T")


@dataclass(frozen=True)
class MicroBatch:
    """One seat's part of a forward pass."""

    block: Block
    num_tokens: int
    """Real tokens, for throughput."""
    window_targets: int
    """Predicted tokens of the seat's whole accumulation window, by which its loss is divided."""


class Pack(PackedModel):
    """Seats on one base. Raises as PackedModel does."""

    def __init__(self, base: Base, options: PackOptions, machine: Machine | None = None) -> None:
        super().__init__(base, options, machine)
        self._allocators: dict[SegmentKey, SegmentAllocator] = {}
        for device in {module.weight.device for module in (*self.linears, *self.saved)}:
            self._allocators[LORA, device] = self._allocators[EMBEDDINGS, device] = SegmentAllocator(device)
            if options.embedding_optimizer_bits == 8:
                self._allocators[EMBEDDINGS, device] = SegmentAllocator(device, has_moments=False)
        if (LORA, base.device) in self._allocators:
            self.adapter_buffers = self._allocators[LORA, base.device].buffers
            self.embedding_buffers = self._allocators[EMBEDDINGS, base.device].buffers
        self.generator = TextGenerator(self)
        self._step_ran_out = False
        """Whether the last training step ran out of memory beside captured passes."""
        self._steps_since_lack = STEPS_BETWEEN_LACKS
        """Training steps since they were given up for such a one."""

    def new_seat(self, config: TrialConfig, *, seats_to_come: int = 0) -> Seat:
        """A seat at step 0: LoRA initialised from the trial's seed, embeddings copied from the base.

        Where the flat buffers have to grow, they grow for `seats_to_come` more such seats, if memory allows.
        Raises TrialConfigError when this pack trains embeddings and the trial has no learning rate for them,
        and torch.OutOfMemoryError when the seat does not fit.
        """
        if self.saved and config.embedding_learning_rate is None:
            names = ", ".join(module.name for module in self.saved)
            raise TrialConfigError(f"embedding_learning_rate is needed: this pack trains {names}")
        seat = self._with_all_memory(
            lambda: Seat(config, self.linears, self.saved, self._allocators, seats_to_come=seats_to_come)
        )
        self._steps_since_lack = STEPS_BETWEEN_LACKS  # another pack: whether its passes fit is not known
        return seat

    def release_memory(self) -> bool:
        """Free the memory of captured passes and of seats that have left or are to come.

        The other seats keep their numbers. Returns whether there was any. Passes are captured again when they
        are next used; only where a training step has run out of memory beside them for the second time within
        `STEPS_BETWEEN_LACKS` steps, none are any more until `resume_capturing`.
        """
        if self._step_ran_out and self._steps_since_lack < STEPS_BETWEEN_LACKS:
            released = [self.stop_capturing(NO_MEMORY_TO_CAPTURE)]
        else:
            released = [self.drop_captured()]
        if self._step_ran_out:
            self._step_ran_out, self._steps_since_lack = False, 0
        released += [allocator.compact() for allocator in set(self._allocators.values())]
        return any(released)

    def _with_all_memory(self, compute: Callable[[], T]) -> T:
        """`compute`, once more without what `release_memory` frees where it ran out of memory beside that."""
        try:
            return compute()
        except torch.OutOfMemoryError:
            has_spare = any(allocator.has_spare for allocator in self._allocators.values())
            if not (has_spare or self.captures()[0]):
                raise
        self.release_memory()  # here, where no traceback holds what was computed so far
        if self.captures()[1]:
            return compute()
        self.stop_capturing(NO_MEMORY_TO_CAPTURE)  # this time, to compute with the least memory
        try:
            return compute()
        finally:
            self.resume_capturing()

    # --- a step: micro-batches -> layout -> forward and backward -> update ----------------------------

    def train_step(self, batches: Mapping[Seat, MicroBatch]) -> dict[Seat, PendingStats]:
        """A micro-batch for every seat, then an update of the seats whose window is full.

        After torch.OutOfMemoryError the windows that are still open hold half a gradient, which must be
        dropped (`Seat.restart_window`).
        """
        try:
            self.micro_step(batches)
            updated = self.update([seat for seat in batches if seat.window_is_full])
        except torch.OutOfMemoryError:
            self._step_ran_out = self.captures()[0] > 0
            raise
        self._steps_since_lack += 1
        return updated

    def micro_step(self, batches: Mapping[Seat, MicroBatch]) -> None:
        """One forward and backward pass for all seats, which adds to each one's gradient and window loss."""
        seats = list(batches)
        for indices, layout in self.plan_passes(seats, [batches[seat].block for seat in seats], self.layout):
            present = [seats[i] for i in indices]
            self._forward_backward(present, [batches[seat] for seat in present], layout)

    def _forward_backward(self, seats: Sequence[Seat], batches: Sequence[MicroBatch], layout: Layout) -> None:
        counts = [block.num_targets for block in layout.blocks]
        targets = torch.cat([block.target_ids for block in layout.blocks])
        # Never a mean over seats or micro-batches: each seat divides by the tokens of its own window.
        weights = torch.tensor([1.0 / batch.window_targets for batch in batches]).repeat_interleave(
            torch.tensor(counts)
        )
        with self.forward_pass(seats, layout, training=True) as (hidden, token_rows):
            targets = targets.to(hidden.device, non_blocking=True)
            weights = to_device(weights, hidden.device)
            nll, grads = [], []
            for chunk, rows in self.logit_chunks(seats, layout.blocks):
                # A chunk's graph ends here, so its logits are freed before the next chunk's are made.
                leaf = hidden[chunk].detach().requires_grad_()
                losses = F.cross_entropy(
                    self.head_logits(leaf, rows).float(), targets[chunk], reduction="none"
                )
                losses.backward(weights[chunk])
                assert leaf.grad is not None
                nll.append(losses.detach())
                grads.append(leaf.grad)
            self.context.rows = token_rows
            if hidden.requires_grad:  # not when only the output layer is trained
                # Also where nothing is predicted: a NaN weight must meet zeros alone as it does in a pack.
                hidden.backward(torch.cat(grads) if grads else torch.zeros_like(hidden))
        parts = torch.cat(nll).split(counts) if nll else [weights] * len(seats)
        for seat, batch, part in zip(seats, batches, parts, strict=True):
            seat.add_micro_batch(_sum(part) / batch.window_targets, batch.num_tokens)

    def update(self, seats: Sequence[Seat]) -> dict[Seat, PendingStats]:
        """Clip and step each of `seats`, and open their next windows; no other seat changes."""
        if not seats:
            return {}
        steps: dict[SegmentAllocator, list[GroupStep]] = {}
        in_8bit: list[tuple[Seat, SegmentKey, GroupStep]] = []
        for trial, seat in enumerate(seats):
            for key, step in seat.group_steps(trial):
                steps.setdefault(self._allocators[key], []).append(step)
                if key in seat.states_8bit:
                    in_8bit.append((seat, key, step))
        home = self.base.device
        squares = [
            squared_norms(allocator.buffers, groups, len(seats)).to(home)
            for allocator, groups in steps.items()
        ]
        norms = torch.stack(squares).sum(0).sqrt_()
        for allocator, groups in steps.items():
            if allocator.buffers.has_moments:
                clip_and_step(allocator.buffers, groups, norms.to(allocator.device))
        for seat, key, step in in_8bit:
            segment = seat.segments[key]
            seat.states_8bit[key].clip_and_step(
                segment.flat_parameters, segment.flat_gradients, step, norms[step.trial]
            )
        return {seat: seat.stepped(norm) for seat, norm in zip(seats, norms, strict=True)}

    # --- without gradients ----------------------------------------------------------------------------

    def evaluate(self, seats: Sequence[Seat | None], blocks: Sequence[Block]) -> list[float]:
        """Token-weighted NLL (nats per token) of each seat on the same blocks; None is the plain base.

        The sum over all tokens is divided once, so the result does not depend on how they are batched.
        """
        return [found.mean for found in self.evaluate_records(seats, blocks)]

    def evaluate_records(self, seats: Sequence[Seat | None], blocks: Sequence[Block]) -> list[Evaluation]:
        """`evaluate`, with the loss of each record beside the mean."""
        return self._with_all_memory(lambda: self._evaluate(seats, blocks))

    @torch.no_grad()
    def _evaluate(self, seats: Sequence[Seat | None], blocks: Sequence[Block]) -> list[Evaluation]:
        count = sum(block.num_targets for block in blocks)
        if count == 0:
            raise ModelError("the evaluation set has no target token")
        totals = [torch.zeros((), dtype=torch.float64, device=self.logits_device) for _ in seats]
        sums: list[list[Tensor]] = [[] for _ in seats]
        for block in blocks:
            by_record = RecordSums(block, self.logits_device)
            for indices, layout in self.plan_passes(seats, [block] * len(seats), self.layout):
                present = [seats[i] for i in indices]
                targets = block.target_ids.repeat(len(present))
                with self.forward_pass(present, layout) as (hidden, _):
                    targets = targets.to(hidden.device, non_blocking=True)
                    nll = [
                        F.cross_entropy(
                            self.head_logits(hidden[chunk], rows).float(), targets[chunk], reduction="none"
                        )
                        for chunk, rows in self.logit_chunks(present, layout.blocks)
                    ]
                parts = torch.cat(nll).view(len(present), -1) if nll else hidden.new_zeros(len(present), 1)
                for index, part in zip(indices, parts, strict=True):
                    # Kept on the device: the host waits once, for the result.
                    totals[index] += _sum(part)
                    sums[index].append(by_record.of(part if nll else part[:0]))
        means: list[float] = (torch.stack(totals) / count).tolist()
        return evaluations(means, sums)

    def log_probabilities(self, seat: Seat | None, block: Block) -> tuple[Tensor, Tensor]:
        """Log-probability (n,) of each target of a block, and whether it is the most likely token."""
        return self._with_all_memory(lambda: self._log_probabilities(seat, block))

    @torch.no_grad()
    def _log_probabilities(self, seat: Seat | None, block: Block) -> tuple[Tensor, Tensor]:
        found: list[Tensor] = []
        is_greedy: list[Tensor] = []
        for _, layout in self.plan_passes([seat], [block], self.layout):
            with self.forward_pass([seat], layout) as (hidden, _):
                targets = block.target_ids.to(hidden.device, non_blocking=True)
                for chunk, rows in self.logit_chunks([seat], layout.blocks):
                    logits = self.head_logits(hidden[chunk], rows).float()
                    found.append(-F.cross_entropy(logits, targets[chunk], reduction="none"))
                    is_greedy.append(logits.argmax(-1) == targets[chunk])
        return torch.cat(found), torch.cat(is_greedy)

    def generate(
        self,
        seats: Sequence[Seat | None],
        prompts: Sequence[Sequence[int]],
        max_new_tokens: int,
        *,
        stop_token_ids: Collection[int] | None = None,
        batch_size: int | None = None,
    ) -> list[list[list[int]]]:
        """Greedy continuations of `prompts` by each seat: [seat][prompt] -> new token ids, no stop token.

        Each of `stop_token_ids` ends a continuation; by default the tokenizer's end token does. `batch_size`
        prompts of every seat are continued at a time, by default all.
        """
        if stop_token_ids is None:
            end = self.base.tokenizer.eos_token_id
            stop_token_ids = () if end is None else (end,)
        stops, at_a_time = frozenset(stop_token_ids), batch_size or max(1, len(prompts))
        return self._with_all_memory(
            lambda: self.generator.generate(seats, prompts, max_new_tokens, stops, at_a_time)
        )


def _sum(part: Tensor) -> Tensor:
    """Sum of a block's losses, the same at any offset: a CUDA sum starts where its memory is aligned."""
    return part.clone().sum() if part.is_cuda else part.sum()
