"""A pack: several trials trained side by side on one frozen base.

One forward and one backward pass serve a micro-batch of every seat. A seat steps when its own accumulation
window is full; nothing of a neighbour (its end, its rank, its NaN) enters another seat's numbers. A pack of
one seat is a plain QLoRA fine-tune: there is no other training loop.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers.pytorch_utils import Conv1D

from lora_runner.config import TrialConfig
from lora_runner.errors import ModelError, TrialConfigError
from lora_runner.layout import PACK_ATTENTION, Block, LayoutKind, attention_over, lay_out
from lora_runner.models import Base, find_saved, find_targets
from lora_runner.packed_modules import PackContext, PackedLinear, PackedSaved
from lora_runner.seats import Seat, StepStats


@dataclass(frozen=True, kw_only=True)
class PackOptions:
    """What all seats of a pack share."""

    target_modules: str | tuple[str, ...] = "all-linear"
    train_embeddings: bool | tuple[str, ...] = False
    gradient_checkpointing: bool = False
    resident_weights: bool = False
    """Keep the dequantised base in memory: the same numbers, no dequantisation in any pass."""


@dataclass(frozen=True)
class MicroBatch:
    """One seat's share of a forward pass."""

    block: Block
    num_tokens: int
    """Real tokens, for throughput."""
    window_targets: int
    """Predicted tokens of the seat's whole accumulation window, by which its loss is divided."""


class Pack:
    """Seats on one base. The base's modules are replaced in place, so a base serves one pack.

    Raises ModelError when nothing matches `target_modules` or the model cannot compute packed rows.
    """

    def __init__(self, base: Base, options: PackOptions) -> None:
        self.base = base
        self.options = options
        self.model = base.model
        self.context = PackContext()
        self.saved_modules = find_saved(self.model, options.train_embeddings)
        self.target_names = tuple(find_targets(self.model, options.target_modules))
        if twice := sorted(set(self.target_names) & set(self.saved_modules.names)):
            raise ModelError(
                f"{', '.join(twice)} cannot be trained in full (train_embeddings) and through LoRA "
                "(target_modules): choose one"
            )
        self._inner_attention = str(self.model.config._attn_implementation)
        self._takes_logits_to_keep = "logits_to_keep" in inspect.signature(self.model.forward).parameters
        self.linears = self._replace_linears()
        self.saved = self._replace_saved()
        if options.gradient_checkpointing:
            # transformers renamed the method; the old name warns in new versions, the new one is absent in
            # old ones.
            enable = getattr(self.model, "activation_checkpointing_enable", None)
            (enable or self.model.gradient_checkpointing_enable)({"use_reentrant": False})
            # transformers checkpoints in training mode only, where the base's own dropout would wake up.
            self._silence_dropout()
            self.model.train()
        self.layout, self.layout_reason = self._choose_layout()

    # --- the base's modules ---------------------------------------------------------------------------------

    def _silence_dropout(self) -> None:
        """Set every dropout rate of the base to 0, wherever a model keeps it."""
        for module in self.model.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0
        for holder in (*self.model.modules(), self.model.config):
            for name, value in vars(holder).items():
                if isinstance(value, float) and "drop" in name:
                    setattr(holder, name, 0.0)

    def _replace_linears(self) -> list[PackedLinear]:
        linears = []
        for index, name in enumerate(self.target_names):
            linears.append(self._replace_linear(name, index))
        # The others compute block by block as well: for exactness, and because bitsandbytes' own layer has no
        # gradient on a CPU when the model is in evaluation mode.
        output = self.model.get_output_embeddings()
        done = {f"{name}.base" for name in self.target_names}
        for name, module in list(self.model.named_modules()):
            if isinstance(module, torch.nn.Linear) and module is not output and name not in done:
                self._replace_linear(name, None)
        return linears

    def _replace_linear(self, name: str, index: int | None) -> PackedLinear:
        base = self.model.get_submodule(name)
        if isinstance(base, Conv1D):
            raise ModelError(
                f"{name} keeps its weight transposed (Conv1D), which a pack trains only on a quantised base"
            )
        packed = PackedLinear(
            base,
            name,
            index,
            self.context,
            resident=self.options.resident_weights,  # type: ignore[arg-type]
        )
        self.model.set_submodule(name, packed)
        return packed

    def _replace_saved(self) -> list[PackedSaved]:
        """Wrap trained embeddings, and the output layer always, so that it too computes block by block."""
        output = self.model.get_output_embeddings()
        names = {id(module): name for name, module in self.model.named_modules()}
        wrapped = dict.fromkeys(self.saved_modules.names)
        if output is not None and id(output) in names and names[id(output)] not in self.target_names:
            wrapped[names[id(output)]] = None
        packed = []
        for name in wrapped:
            module = PackedSaved(self.model.get_submodule(name), name, self.context)
            self.model.set_submodule(name, module)
            if name in self.saved_modules.names:
                packed.append(module)
        if self.saved_modules.tied:
            for module in packed[1:]:
                module.tied_to = packed[0].name
        return packed

    def _choose_layout(self) -> tuple[LayoutKind, str]:
        """Try the end-to-end layout on two small blocks and keep it if it gives the plain model's logits."""
        if not self._takes_logits_to_keep:
            return "rectangular", "the model's forward has no logits_to_keep"
        generator = torch.Generator().manual_seed(0)
        vocabulary = int(self.model.get_input_embeddings().weight.shape[0])
        blocks = []
        for shape in ((2, 12), (1, 7)):
            ids = torch.randint(vocabulary, shape, generator=generator).to(self.base.device)
            blocks.append(Block.from_labels(ids, ids))
        with torch.no_grad():
            plain = torch.cat([self._forward([None], [block], "rectangular")[0] for block in blocks])
            try:
                packed = torch.cat(self._forward([None, None], blocks, "end_to_end"))
            except (TypeError, ValueError, RuntimeError, AttributeError, IndexError, KeyError) as error:
                return "rectangular", f"end-to-end rows are not supported: {type(error).__name__}: {error}"[
                    :200
                ]
            difference = float((plain.float() - packed.float()).abs().max() / plain.float().abs().max())
        tolerance = 1e-4 if self.base.compute_dtype == torch.float32 else 5e-2
        if not difference <= tolerance:
            return "rectangular", f"end-to-end logits differ from the plain model's by {difference:.1e}"
        return "end_to_end", f"logits agree with the plain model's within {difference:.1e}"

    # --- forward and backward -------------------------------------------------------------------------------

    def new_seat(self, config: TrialConfig) -> Seat:
        """A seat at step 0: LoRA initialised from the trial's seed, embeddings copied from the base.

        Raises TrialConfigError when the trial has no rate for the layers that this pack trains in full, and
        torch.OutOfMemoryError when the seat does not fit.
        """
        if self.saved and config.embedding_learning_rate is None:
            names = ", ".join(module.name for module in self.saved)
            raise TrialConfigError(f"embedding_learning_rate is needed: this pack trains {names}")
        return Seat(config, self.linears, self.saved)

    def _forward(
        self, seats: Sequence[Seat | None], blocks: Sequence[Block], kind: LayoutKind
    ) -> list[Tensor]:
        """Logits (n, vocabulary) at the predicting positions of each block; seat None is the untouched base.

        The context stays as it is set here until the next pass: gradient checkpointing computes layers again
        during the backward pass and must find the same seats.
        """
        layout = lay_out(blocks, kind, self.base.pad_token_id)
        self.context.layout, self.context.seats = layout, seats
        config = self.model.config
        if kind == "rectangular":
            config._attn_implementation = self._inner_attention
            logits = self.model(**layout.inputs).logits.flatten(0, 1)[layout.target_rows]
        else:
            config._attn_implementation = PACK_ATTENTION
            with attention_over(layout, self._inner_attention):
                logits = self.model(**layout.inputs, logits_to_keep=layout.target_rows).logits[0]
        return list(logits.split([span.stop - span.start for span in layout.target_spans]))

    def _release(self) -> None:
        """Forget the seats of the pass that is over: the memory of one that leaves is free at once."""
        self.context.layout, self.context.seats, self.context.training = None, (), False

    def micro_step(self, batches: Mapping[Seat, MicroBatch]) -> None:
        """One forward and backward pass for all seats; each one's gradient and loss join its window."""
        self.context.training = True
        try:
            parts = self._forward(list(batches), [share.block for share in batches.values()], self.layout)
            losses = [
                # Never a mean over seats or micro-batches: each seat divides by its own window's tokens.
                F.cross_entropy(part.float(), share.block.target_ids, reduction="sum") / share.window_targets
                for share, part in zip(batches.values(), parts, strict=True)
            ]
            torch.stack(losses).sum().backward()
        finally:
            self._release()
        for (seat, share), loss in zip(batches.items(), losses, strict=True):
            seat.add_micro_batch(loss, share.num_tokens)

    def train_step(self, batches: Mapping[Seat, MicroBatch]) -> dict[Seat, StepStats]:
        """A micro-batch for every seat, then an update of the seats whose window is full.

        After torch.OutOfMemoryError the windows that are still open hold half a gradient, which must be
        forgotten
        (`Seat.restart_window`).
        """
        self.micro_step(batches)
        return {seat: seat.update() for seat in batches if seat.window_is_full}

    @torch.no_grad()
    def evaluate(self, seats: Sequence[Seat | None], blocks: Sequence[Block]) -> list[float]:
        """Token-weighted NLL (nats per token) of each seat on the same blocks; None is the untouched base.

        The sum over all tokens is divided once, so the result does not depend on how the tokens are batched.
        """
        count = sum(len(block.target_ids) for block in blocks)
        if count == 0:
            raise ModelError("the evaluation set has no target token")
        totals = [0.0] * len(seats)
        try:
            for block in blocks:
                for index, part in enumerate(self._forward(seats, [block] * len(seats), self.layout)):
                    totals[index] += float(F.cross_entropy(part.float(), block.target_ids, reduction="sum"))
        finally:
            self._release()
        return [total / count for total in totals]

    @torch.no_grad()
    def generate(
        self, seats: Sequence[Seat | None], prompts: Sequence[Sequence[int]], max_new_tokens: int
    ) -> list[list[list[int]]]:
        """Greedy continuations of `prompts` by each seat: [seat][prompt] -> new token ids, no end token.

        Each new token costs a full forward pass: meant for a few short samples, not for serving.
        """
        end = self.base.tokenizer.eos_token_id
        texts = [[list(prompt) for prompt in prompts] for _ in seats]
        for _ in range(max_new_tokens):
            width = max(len(ids) for seat in texts for ids in seat)
            blocks = []
            for seat_texts in texts:
                rows = [ids + [self.base.pad_token_id] * (width - len(ids)) for ids in seat_texts]
                lengths = torch.tensor([len(ids) for ids in seat_texts], device=self.base.device)
                blocks.append(Block.next_token(torch.tensor(rows, device=self.base.device), lengths))
            try:
                parts = self._forward(seats, blocks, self.layout)
            finally:
                self._release()
            for seat_texts, logits in zip(texts, parts, strict=True):
                for ids, token in zip(seat_texts, logits.argmax(-1).tolist(), strict=True):
                    ids.append(token)
        new = [[ids[len(p) :] for ids, p in zip(seat, prompts, strict=True)] for seat in texts]
        return [[ids[: ids.index(end)] if end in ids else ids for ids in seat] for seat in new]


def to_block(collated: tuple[Any, Any], device: torch.device) -> Block:
    """A Block from right-padded lists of token ids and labels, both (b, S)."""
    ids, labels = collated
    return Block.from_labels(torch.tensor(ids, device=device), torch.tensor(labels, device=device))
