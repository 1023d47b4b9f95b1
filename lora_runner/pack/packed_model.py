"""The base of a pack: its modules replaced, and one forward pass for the blocks of several seats."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from lora_runner.base.liger import use_liger
from lora_runner.base.load_model import Base, vocabulary_size
from lora_runner.base.model_structure import text_config
from lora_runner.errors import ModelError, first_line
from lora_runner.fused.compute_path import ComputePath, Machine, NotFusedError
from lora_runner.fused.replaced import raise_unless_of_model
from lora_runner.kernels.frozen_product import use_way
from lora_runner.layers.attention import AttentionImplementation
from lora_runner.layers.block_modules import call_by_block
from lora_runner.layers.linear import PackContext, RowOwners, pack_order
from lora_runner.layout.kv_cache import KeyValueCache
from lora_runner.layout.pack_layout import Block, Layout, LayoutKind, plan_layouts
from lora_runner.layout.slot_cache import SlotCache
from lora_runner.optim.flat_buffers import FlatBuffers
from lora_runner.pack.convert_model import (
    keep_original_weights,
    replace_modules,
    split_model,
    train_checkpointed,
)
from lora_runner.pack.general_passes import GeneralPasses
from lora_runner.pack.options import PackOptions
from lora_runner.pack.seat import Seat

if TYPE_CHECKING:
    from lora_runner.fused.fused_passes import FusedPasses

LAYOUTS: tuple[LayoutKind, ...] = ("end_to_end", "rectangular")
"""In the order in which they are tried."""
ROW_KERNELS = "norms, activations and rotary embeddings"
"""The part of the general path for which kernels are chosen."""
MAX_LOGITS = 1 << 27
"""Elements of logits held at once: half a GiB in fp32. More positions are computed in chunks."""
MAX_LOGITS_ON_CPU = 1 << 24
"""The same on a CPU, which needs no large matmuls to be fast: 341 positions of 49,152 tokens."""
MODEL_ERRORS = (TypeError, ValueError, RuntimeError, AttributeError, IndexError, KeyError)
"""What a model's own code raises on inputs that it does not support."""


class PackedModel:
    """A base whose modules compute for several seats. They are replaced in place: a base serves one pack.

    Raises ModelError when nothing matches `target_modules` or the model cannot compute packed rows.
    """

    def __init__(self, base: Base, options: PackOptions, machine: Machine | None = None) -> None:
        """`machine`: what decides about the path; by default that of the base's device."""
        self.base = base
        self.options = options
        self.model = base.model
        self.context = PackContext()
        machine = self.machine = machine or Machine.of(base.device, base.compute_dtype)
        # Before the layout is tried; on the fused path other kernels take these parts.
        row_kernels = None if machine.has_fused_kernels else self._use_liger()
        keep_original_weights(self.model)
        self.linears, self.saved = replace_modules(self.model, self.context, options)
        self.target_names = tuple(linear.name for linear in self.linears)
        self.attention = AttentionImplementation(
            str(self.model.config._attn_implementation), base.device.type
        )
        self.max_positions: int | None = getattr(text_config(self.model), "max_position_embeddings", None)
        self._decoder, self._head = split_model(self.model)
        if options.gradient_checkpointing:
            # transformers renamed the method: new versions warn about the old name, old ones lack the new.
            enable = getattr(self.model, "activation_checkpointing_enable", None)
            (enable or self.model.gradient_checkpointing_enable)(
                # A captured pass cannot keep the state of random numbers, which no layer of a pack draws.
                {"use_reentrant": False, "preserve_rng_state": False}
            )
            train_checkpointed(self.model)
        self.adapter_buffers: FlatBuffers | None = None
        """Where the seats' adapters lie on the base's device; None while there can be no seats."""
        self.embedding_buffers: FlatBuffers | None = None
        """The same of trained embeddings."""
        general = GeneralPasses(self._decoder, self.model.config, lambda: self.attention)
        self._passes: GeneralPasses | FusedPasses = general
        decision = machine.decision
        # Before the first pass: a trial's numbers depend on it. The choice of an earlier pack is forgotten.
        use_way(
            base.device,
            base.compute_dtype,
            decision.product,
            kernel=decision.kernel,
            library_rows=decision.library_rows,
        )
        self.layout, self.layout_reason = self._choose_layout()
        self.path = replace(self._choose_path(machine), product=decision.product_name)
        if not self.path.is_fused:
            self._passes, general.reason = general, self.path.reason
            row_kernels = row_kernels or self._use_liger()
            self.path = replace(self.path, parts={ROW_KERNELS: row_kernels})

    def _use_liger(self) -> str:
        """Patch the model with Liger's kernels if the certificate allows it; what was done, as text."""
        if (refusal := self.machine.decision.liger_refusal) is not None:
            return f"transformers' own layers: {refusal}"
        return use_liger(self.model, self.base.device)

    # --- one forward pass -----------------------------------------------------------------------------

    def plan_passes(
        self, seats: Sequence[Seat | None], blocks: Sequence[Block], kind: LayoutKind
    ) -> Iterator[tuple[list[int], Layout]]:
        """The forward passes that `blocks` need: indices into `seats`, in pack order, and their layout."""
        order = pack_order(seats)
        laid = plan_layouts([blocks[i] for i in order], kind, max_positions=self.max_positions)
        for indices, layout in laid:
            yield [order[i] for i in indices], layout

    @contextmanager
    def forward_pass(
        self,
        seats: Sequence[Seat | None],
        layout: Layout,
        *,
        training: bool = False,
        cache: KeyValueCache | SlotCache | None = None,
    ) -> Iterator[tuple[Tensor, RowOwners]]:
        """Hidden states (n, h) of the predicting positions, block after block, and the owners of all rows.

        The context lasts until the `with` block ends: gradient checkpointing computes layers again during
        the backward pass and must find the same seats. Then they are dropped, so that the memory of a seat
        that leaves is free at once.
        """
        context, config = self.context, self.model.config
        try:
            rows = context.rows = RowOwners(seats, layout.sizes)
            context.distinct_ids = [block.distinct_ids for block in layout.blocks]
            context.distinct_indices = layout.distinct_indices
            if training:
                context.anchor = torch.zeros((), device=self.base.device, requires_grad=True)
            hidden = self._passes.hidden(seats, layout, cache, training=training)
            target_rows = torch.cat(layout.target_rows).to(hidden.device, non_blocking=True)
            predicting = hidden.index_select(0, target_rows)
            # A base spread over devices may keep a tied output layer on the first of them.
            yield predicting.to(self.logits_device, non_blocking=True), rows
        finally:
            config._attn_implementation = self.attention.name
            self.context.__init__()  # type: ignore[misc]

    def logit_chunks(
        self, seats: Sequence[Seat | None], blocks: Sequence[Block]
    ) -> Iterator[tuple[slice, RowOwners]]:
        """Slices of the predicting positions whose logits fit in `max_logits`, and the owners of their rows.

        A block is cut where its own positions demand it, never where a neighbour's do.
        """
        vocabulary = int(self.model.get_output_embeddings().weight.shape[0])
        most = max(1, max_logits(self.attention.device_type) // vocabulary)
        can_share = can_share_chunk(vocabulary, self.logits_device)
        start = stop = 0
        chunk: list[tuple[Seat | None, int]] = []
        for seat, block in zip(seats, blocks, strict=True):
            for first in range(0, block.num_targets, most):
                size = min(most, block.num_targets - first)
                if chunk and not (can_share and stop - start + size <= most):
                    yield slice(start, stop), RowOwners(*zip(*chunk, strict=True))
                    start, chunk = stop, []
                chunk.append((seat, size))
                stop += size
        if chunk:
            yield slice(start, stop), RowOwners(*zip(*chunk, strict=True))

    def head_logits(self, hidden: Tensor, rows: RowOwners) -> Tensor:
        """Logits (rows, V) of hidden states, with whatever the model does to them after its output layer."""
        self.context.rows = rows
        logits: Tensor = self._head(inputs_embeds=hidden[None]).logits[0]
        return logits

    @property
    def logits_device(self) -> torch.device:
        """The output layer's."""
        device: torch.device = self.model.get_output_embeddings().weight.device
        return device

    def logits(
        self,
        seats: Sequence[Seat | None],
        blocks: Sequence[Block],
        kind: LayoutKind,
        cache: KeyValueCache | SlotCache | None = None,
    ) -> list[Tensor]:
        """Logits (n, V) of each block's predicting positions, which should be few.

        `cache` keeps the keys and values of the seats, in pack order; once filled, it holds the tokens before
        those of `blocks`.
        """
        found: dict[int, Tensor] = {}
        for indices, layout in self.plan_passes(seats, blocks, kind):
            if cache is not None and cache.is_filled:
                layout = replace(layout, positions=tuple(cache.positions))
            present = [seats[i] for i in indices]
            with self.forward_pass(present, layout, cache=cache) as (hidden, _):
                chunks = self.logit_chunks(present, layout.blocks)
                parts = [self.head_logits(hidden[chunk], rows) for chunk, rows in chunks]
            logits = torch.cat(parts).split([block.num_targets for block in layout.blocks])
            found.update(zip(indices, logits, strict=True))
        return [found[i] for i in range(len(seats))]

    def new_cache(self, lengths: Sequence[Sequence[int]], num_new: int) -> KeyValueCache | SlotCache:
        """A cache for prompts of these lengths, by block, each with up to `num_new` tokens after it."""
        return self._passes.new_cache(lengths, num_new)

    def one_cache(self, num_texts: int, num_tokens: int) -> AbstractContextManager[None]:
        """For all texts generated inside: at most `num_texts` at a time, of up to `num_tokens` tokens."""
        return self._passes.one_cache(num_texts, num_tokens)

    def captures(self) -> tuple[int, str]:
        """How many passes are captured as graphs now, and why no others will be; empty where they will."""
        return self._passes.captures()

    def drop_captured(self) -> bool:
        """Free captured passes, to be captured again when they are used; whether there were any."""
        return self._passes.drop_captured()

    def stop_capturing(self, reason: str) -> bool:
        """Free captured passes and compute all passes as usual, for `reason`; whether there were any."""
        return self._passes.stop_capturing(reason)

    def resume_capturing(self) -> None:
        """Capture passes again, now that a pack that had run out of memory has become smaller."""
        self._passes.resume_capturing()

    # --- the layout, chosen once ----------------------------------------------------------------------

    def _choose_path(self, machine: Machine) -> ComputePath:
        """The fused path if the machine and all parts of the model have it."""
        if not machine.has_fused_kernels:
            return ComputePath(False, machine.reason)
        if self.layout != "end_to_end":
            return ComputePath(False, f"sequences are rows of their own: {self.layout_reason}")
        if self.called_by_block:
            first, count = self.called_by_block[0], len(self.called_by_block)
            return ComputePath(False, f"modules multiply by matrices of their own: {first}, {count} in all")
        from lora_runner.fused.fused_decoder import remove_fused_parts  # needs triton

        try:
            return self._fused_path(machine)
        except NotFusedError as error:
            reason = str(error)
        except Exception as error:  # a kernel that cannot be compiled, or is too large for the device
            raise_unless_of_model(error)
            if self.base.device.type == "meta":
                raise  # nothing is computed there, so it says nothing about a real pack
            reason = f"its kernels cannot run here: {type(error).__name__}: {first_line(error)}"
        remove_fused_parts(self._decoder, self.context)  # here, where no traceback holds them
        return ComputePath(False, reason)

    def _fused_path(self, machine: Machine) -> ComputePath:
        """The fused path, in place. NotFusedError for a model that it does not compute."""
        from lora_runner.fused.fused_decoder import FusedDecoder
        from lora_runner.fused.fused_passes import FusedPasses

        blocks, dtype = _small_blocks(self.base.device, vocabulary_size(self.model)), self.base.compute_dtype

        def logits() -> Tensor:
            return torch.cat(self.logits([None, None], blocks, self.layout))

        with torch.no_grad():
            plain = logits()
            fused = FusedDecoder(self._decoder, self.context, self.linears, logits, dtype)
            self._passes = FusedPasses(
                fused,
                self.context,
                self.model.config,
                lambda: (self.adapter_buffers, self.embedding_buffers),
                machine.new_pool if self.options.graphs else None,
                "" if self.options.graphs else "graphs: false",
            )
            difference = logit_difference(logits(), plain, dtype)
        if difference is not None:
            raise NotFusedError(f"fused logits differ from the plain model's by {difference:.1e}")
        return ComputePath(True, machine.reason, fused.describe())

    def _choose_layout(self) -> tuple[LayoutKind, str]:
        """The end-to-end layout if it gives the plain model's logits on small blocks, else rectangular."""
        batches = _small_batches(vocabulary_size(self.model))
        blocks = _small_blocks(self.base.device, vocabulary_size(self.model))
        plain = list[Tensor]()

        def compute_plain_logits() -> None:
            for ids in batches:
                self.context.rows = RowOwners([None], [ids.numel()])
                logits = self.model(input_ids=ids.to(self.base.device)).logits
                plain.append(logits[:, :-1].flatten(0, 1))

        with torch.no_grad():
            try:
                self.called_by_block = call_by_block(self._decoder, self.context, compute_plain_logits)
            except torch.OutOfMemoryError:
                raise
            except MODEL_ERRORS as error:
                raise ModelError(
                    f"model {self.base.spec.model!r} does not compute as it is loaded: "
                    f"{type(error).__name__}: {first_line(error)}"
                ) from error
            reasons = list[str]()
            for kind in LAYOUTS:
                reason = self._try_layout(kind, blocks, torch.cat(plain))
                if reason is None:
                    return kind, reasons[0] if reasons else "its logits are those of the plain model"
                reasons.append(reason)
        raise ModelError(f"model {self.base.spec.model!r} cannot be trained in a pack: " + "; ".join(reasons))

    def _try_layout(self, kind: LayoutKind, blocks: list[Block], plain: Tensor) -> str | None:
        """Why a layout fails; None when it works."""
        if kind == "end_to_end" and getattr(text_config(self.model), "attn_temperature_tuning", False):
            # Llama 4 counts the rows before a token from some thousands on, which small blocks do not show.
            return "its attention scales with a token's index in the row (attn_temperature_tuning)"
        try:
            packed = torch.cat(self.logits([None, None], blocks, kind))
        except MODEL_ERRORS as error:
            return f"{kind} rows are not supported: {type(error).__name__}: {error}"[:200]
        difference = logit_difference(packed, plain, self.base.compute_dtype)
        if difference is None:
            return None
        return f"{kind} logits differ from the plain model's by {difference:.1e}"


def _small_batches(vocabulary: int) -> list[Tensor]:
    """Two batches of token ids on which ways to compute are compared."""
    generator = torch.Generator().manual_seed(0)
    return [torch.randint(vocabulary, shape, generator=generator) for shape in ((2, 12), (1, 7))]


def _small_blocks(device: torch.device, vocabulary: int) -> list[Block]:
    return [Block.of([(row, row) for row in ids.tolist()], device) for ids in _small_batches(vocabulary)]


def logit_difference(found: Tensor, expected: Tensor, dtype: torch.dtype) -> float | None:
    """The relative difference of logits; None if it is only rounding in `dtype`."""
    difference = float((expected.float() - found.float()).abs().max() / expected.float().abs().max())
    return None if difference <= (1e-4 if dtype == torch.float32 else 5e-2) else difference


def max_logits(device_type: str) -> int:
    """Elements of logits held at once on a device."""
    return min(MAX_LOGITS, MAX_LOGITS_ON_CPU) if device_type == "cpu" else MAX_LOGITS


def can_share_chunk(vocabulary: int, device: torch.device) -> bool:
    """Whether a row's log-softmax is the same at any offset: CUDA reads 16 aligned bytes at a time."""
    return device.type != "cuda" or vocabulary % 4 == 0
