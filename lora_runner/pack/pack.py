"""A pack: several trials trained side by side on one frozen base.

One forward and one backward pass serve a micro-batch of every seat. A seat steps when its own accumulation
window is full; nothing of a neighbour (its end, its rank, its NaN) enters another seat's numbers. A pack of
one seat is a plain QLoRA fine-tune: there is no other training loop.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from lora_runner.base.load_model import Base, vocabulary_size
from lora_runner.base.model_structure import text_config
from lora_runner.config import TrialConfig
from lora_runner.errors import ModelError, TrialConfigError, first_line
from lora_runner.layers.attention import PACK_ATTENTION, Grids, Inner, attention_over
from lora_runner.layers.block_modules import call_by_block
from lora_runner.layers.linear import PackContext, Rows, in_pack_order
from lora_runner.layout.device_tables import to_device
from lora_runner.layout.kv_cache import KeyValueCache
from lora_runner.layout.pack_layout import Block, Layout, LayoutKind, lay_out
from lora_runner.metric.generation import Generator
from lora_runner.optim.adamw import GroupStep, clip_and_step, squared_norms
from lora_runner.optim.flat_buffers import Arena
from lora_runner.pack.convert_model import keep_weights, replace_modules, split_model, train_checkpointed
from lora_runner.pack.seat import EMBEDDINGS, LORA, PendingStats, Seat, SegmentKey

LAYOUTS: tuple[LayoutKind, ...] = ("end_to_end", "rectangular")
"""In the order in which they are tried."""
MAX_LOGITS = 1 << 27
"""Logits that exist at once, in elements: half a GiB in fp32. More positions are taken in turns."""
MAX_LOGITS_ON_CPU = 1 << 24
"""The same on a CPU, which needs no large products to be fast: 341 positions of 49,152 tokens."""


@dataclass(frozen=True, kw_only=True)
class PackOptions:
    """What all seats of a pack share."""

    target_modules: str | tuple[str, ...] = "all-linear"
    train_embeddings: bool | tuple[str, ...] = False
    trainable_token_indices: tuple[int, ...] = ()
    """Ids of tokens whose rows alone are trained, instead of `train_embeddings`: of the input embeddings, and
    of an output layer that is tied to them, as in peft."""
    gradient_checkpointing: bool = False
    resident_weights: bool = False
    """Keep the dequantised base in memory: the same numbers, no dequantisation in any pass."""
    embedding_optimizer_bits: Literal[32, 8] = 32
    """8 keeps moments of trained embeddings in bitsandbytes' 8 bits; `states_8bit.py` says what changes."""


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
        keep_weights(self.model)
        self.linears, self.saved = replace_modules(
            self.model,
            self.context,
            target_modules=options.target_modules,
            train_embeddings=options.train_embeddings,
            trainable_token_indices=options.trainable_token_indices,
            resident=options.resident_weights,
        )
        self.target_names = tuple(linear.name for linear in self.linears)
        self.attention = Inner(str(self.model.config._attn_implementation), base.device.type)
        """What computes attention within a sequence: the base's own, or one that is exact on CUDA."""
        self.most_positions: int | None = getattr(text_config(self.model), "max_position_embeddings", None)
        self._decoder, self._head = split_model(self.model)
        devices = {module.weight.device for module in (*self.linears, *self.saved)}
        self._arenas: dict[SegmentKey, Arena] = {}
        for device in devices:
            self._arenas[LORA, device] = self._arenas[EMBEDDINGS, device] = Arena(device)
            if options.embedding_optimizer_bits == 8:
                self._arenas[EMBEDDINGS, device] = Arena(device, has_moments=False)
        if options.gradient_checkpointing:
            # transformers renamed the method; the old name warns in new versions, the new one is absent in
            # old ones.
            enable = getattr(self.model, "activation_checkpointing_enable", None)
            (enable or self.model.gradient_checkpointing_enable)({"use_reentrant": False})
            train_checkpointed(self.model)
        self.layout, self.layout_reason = self._choose_layout()
        self.generator = Generator(self)

    def _choose_layout(self) -> tuple[LayoutKind, str]:
        """The end-to-end layout if it gives the plain model's logits on small blocks, else rectangular."""
        generator = torch.Generator().manual_seed(0)
        vocabulary = vocabulary_size(self.model)
        grids = [torch.randint(vocabulary, shape, generator=generator) for shape in ((2, 12), (1, 7))]
        blocks = [Block.of([(row, row) for row in ids.tolist()], self.base.device) for ids in grids]
        plain = list[Tensor]()

        def without_neighbours() -> None:
            for ids in grids:
                self.context.rows = Rows([None], [ids.numel()])
                logits = self.model(input_ids=ids.to(self.base.device)).logits
                plain.append(logits[:, :-1].flatten(0, 1))

        with torch.no_grad():
            try:
                self.called_by_block = call_by_block(self._decoder, self.context, without_neighbours)
            except torch.OutOfMemoryError:
                raise
            except (TypeError, ValueError, RuntimeError, AttributeError, IndexError, KeyError) as error:
                raise ModelError(
                    f"model {self.base.spec.model!r} does not compute as it is loaded: "
                    f"{type(error).__name__}: {first_line(error)}"
                ) from error
            reasons = list[str]()
            for kind in LAYOUTS:
                reason = self._unfit(kind) or self._try_layout(kind, blocks, torch.cat(plain))
                if reason is None:
                    return kind, reasons[0] if reasons else "its logits are those of the plain model"
                reasons.append(reason)
        raise ModelError(f"model {self.base.spec.model!r} cannot be trained in a pack: " + "; ".join(reasons))

    def _unfit(self, kind: LayoutKind) -> str | None:
        """Why a layout would not serve where small blocks do not show it."""
        if kind == "end_to_end" and getattr(text_config(self.model), "attn_temperature_tuning", False):
            # Llama 4 counts the rows before a token, from some thousands on.
            return "its attention scales with a token's place in the row (attn_temperature_tuning)"
        return None

    def _try_layout(self, kind: LayoutKind, blocks: list[Block], plain: Tensor) -> str | None:
        """Why a layout does not serve; None when it does."""
        try:
            packed = torch.cat(self.logits([None, None], blocks, kind))
        except (TypeError, ValueError, RuntimeError, AttributeError, IndexError, KeyError) as error:
            return f"{kind} rows are not supported: {type(error).__name__}: {error}"[:200]
        difference = float((plain.float() - packed.float()).abs().max() / plain.float().abs().max())
        tolerance = 1e-4 if self.base.compute_dtype == torch.float32 else 5e-2
        if difference <= tolerance:
            return None
        return f"{kind} logits differ from the plain model's by {difference:.1e}"

    # --- forward and backward ---------------------------------------------------------------------------

    def new_seat(self, config: TrialConfig) -> Seat:
        """A seat at step 0: LoRA initialised from the trial's seed, embeddings copied from the base.

        Raises TrialConfigError when the trial has no rate for the embeddings that this pack trains, and
        torch.OutOfMemoryError when the seat does not fit.
        """
        if self.saved and config.embedding_learning_rate is None:
            names = ", ".join(module.name for module in self.saved)
            raise TrialConfigError(f"embedding_learning_rate is needed: this pack trains {names}")
        return Seat(config, self.linears, self.saved, self._arenas)

    def _passes(
        self, seats: Sequence[Seat | None], blocks: Sequence[Block], kind: LayoutKind
    ) -> Iterator[tuple[list[int], Layout]]:
        """The forward passes that `blocks` need: places among `seats`, in pack order, and their layout."""
        order = in_pack_order(seats)
        laid = lay_out([blocks[i] for i in order], kind, most_positions=self.most_positions)
        for places, layout in laid:
            yield [order[place] for place in places], layout

    @contextmanager
    def _pass(
        self,
        seats: Sequence[Seat | None],
        layout: Layout,
        *,
        training: bool = False,
        cache: KeyValueCache | None = None,
    ) -> Iterator[tuple[Tensor, Rows]]:
        """Hidden states (n, h) of the predicting positions, block after block, and the owners of all rows.

        The context stays until the block ends: gradient checkpointing computes layers again during the
        backward pass and must find the same seats. Then they are forgotten: the memory of one that leaves is
        free at once.
        """
        context, config = self.context, self.model.config
        try:
            rows = context.rows = Rows(seats, layout.sizes)
            context.places, context.distinct = layout.places, [block.distinct_ids for block in layout.blocks]
            if training:
                context.anchor = torch.zeros((), device=self.base.device, requires_grad=True)
            if layout.kind == "rectangular":
                config._attn_implementation = self.attention.name
                hidden = self._decoder(**layout.inputs)[0]
            else:
                config._attn_implementation = PACK_ATTENTION
                lengths = [block.lengths for block in layout.blocks]
                grids = Grids.of(lengths, together=self.attention.may_meet)
                with attention_over(grids, self.attention, cache):
                    hidden = self._decoder(**layout.inputs)[0]
            targets = torch.cat(layout.target_rows).to(hidden.device, non_blocking=True)
            found = hidden.flatten(0, 1).index_select(0, targets)
            # A base that is spread over devices may keep its output layer, tied, where it begins.
            yield found.to(self._home_of_logits, non_blocking=True), rows
        finally:
            config._attn_implementation = self.attention.name
            self.context.__init__()  # type: ignore[misc]

    @property
    def _home_of_logits(self) -> torch.device:
        device: torch.device = self.model.get_output_embeddings().weight.device
        return device

    def _turns(self, seats: Sequence[Seat | None], blocks: Sequence[Block]) -> Iterator[tuple[slice, Rows]]:
        """The predicting positions in turns of so many that their logits fit in `max_logits`.

        A block is cut where its own positions demand it, never where a neighbour's do.
        """
        vocabulary = int(self.model.get_output_embeddings().weight.shape[0])
        most = max(1, max_logits(self.attention.device_type) // vocabulary)
        together = may_share_a_turn(vocabulary, self._home_of_logits)
        start = stop = 0
        turn: list[tuple[Seat | None, int]] = []
        for seat, block in zip(seats, blocks, strict=True):
            for first in range(0, block.num_targets, most):
                size = min(most, block.num_targets - first)
                if turn and not (together and stop - start + size <= most):
                    yield slice(start, stop), Rows(*zip(*turn, strict=True))
                    start, turn = stop, []
                turn.append((seat, size))
                stop += size
        if turn:
            yield slice(start, stop), Rows(*zip(*turn, strict=True))

    def _head_logits(self, hidden: Tensor, rows: Rows) -> Tensor:
        """Logits (rows, V) of hidden states, with whatever the model does to them after its output layer."""
        self.context.rows = rows
        logits: Tensor = self._head(inputs_embeds=hidden[None]).logits[0]
        return logits

    def logits(
        self,
        seats: Sequence[Seat | None],
        blocks: Sequence[Block],
        kind: LayoutKind,
        cache: KeyValueCache | None = None,
    ) -> list[Tensor]:
        """Logits (n, V) of each block's predicting positions; for few of them.

        A `cache`, of the seats in pack order, keeps keys and values; a filled one has what stands before.
        """
        found: dict[int, Tensor] = {}
        for places, layout in self._passes(seats, blocks, kind):
            if cache is not None and cache.is_filled:
                layout = replace(layout, positions=tuple(cache.positions))
            here = [seats[i] for i in places]
            with self._pass(here, layout, cache=cache) as (hidden, _):
                turns = self._turns(here, layout.blocks)
                parts = [self._head_logits(hidden[turn], rows) for turn, rows in turns]
            logits = torch.cat(parts).split([block.num_targets for block in layout.blocks])
            found.update(zip(places, logits, strict=True))
        return [found[i] for i in range(len(seats))]

    def give_back(self) -> None:
        """Let go of the memory that seats left behind; those that are there keep their numbers."""
        for arena in set(self._arenas.values()):
            arena.compact()

    def micro_step(self, batches: Mapping[Seat, MicroBatch]) -> None:
        """One forward and backward pass for all seats; each one's gradient and loss join its window."""
        seats = list(batches)
        for places, layout in self._passes(seats, [batches[seat].block for seat in seats], self.layout):
            here = [seats[i] for i in places]
            self._micro_pass(here, [batches[seat] for seat in here], layout)

    def _micro_pass(self, seats: Sequence[Seat], shares: Sequence[MicroBatch], layout: Layout) -> None:
        counts = [block.num_targets for block in layout.blocks]
        targets = torch.cat([block.target_ids for block in layout.blocks])
        # Never a mean over seats or micro-batches: each seat divides by its own window's tokens.
        weights = torch.tensor([1.0 / share.window_targets for share in shares]).repeat_interleave(
            torch.tensor(counts)
        )
        with self._pass(seats, layout, training=True) as (hidden, token_rows):
            targets = targets.to(hidden.device, non_blocking=True)
            weights = to_device(weights, hidden.device)
            nll, grads = [], []
            for turn, rows in self._turns(seats, layout.blocks):
                # The graph of a turn ends here, so its logits are gone before the next one's are made.
                leaf = hidden[turn].detach().requires_grad_()
                losses = F.cross_entropy(
                    self._head_logits(leaf, rows).float(), targets[turn], reduction="none"
                )
                losses.backward(weights[turn])
                assert leaf.grad is not None
                nll.append(losses.detach())
                grads.append(leaf.grad)
            self.context.rows = token_rows
            if hidden.requires_grad:  # not when only the output layer is trained
                # Also where nothing is predicted: zeros meet a NaN weight alone as they would in a pack.
                hidden.backward(torch.cat(grads) if grads else torch.zeros_like(hidden))
        parts = torch.cat(nll).split(counts) if nll else [weights] * len(seats)
        for seat, share, part in zip(seats, shares, parts, strict=True):
            seat.add_micro_batch(_sum(part) / share.window_targets, share.num_tokens)

    def train_step(self, batches: Mapping[Seat, MicroBatch]) -> dict[Seat, PendingStats]:
        """A micro-batch for every seat, then an update of the seats whose window is full.

        After torch.OutOfMemoryError the windows that are still open hold half a gradient, which must be
        forgotten (`Seat.restart_window`).
        """
        self.micro_step(batches)
        return self.update([seat for seat in batches if seat.window_is_full])

    def update(self, seats: Sequence[Seat]) -> dict[Seat, PendingStats]:
        """Clip and step each of `seats`, and open their next windows; no other seat's state moves."""
        if not seats:
            return {}
        steps: dict[Arena, list[GroupStep]] = {}
        in_8bit: list[tuple[Seat, SegmentKey, GroupStep]] = []
        for trial, seat in enumerate(seats):
            for key, step in seat.group_steps(trial):
                steps.setdefault(self._arenas[key], []).append(step)
                if key in seat.states_8bit:
                    in_8bit.append((seat, key, step))
        home = self.base.device
        squares = [
            squared_norms(arena.buffers, groups, len(seats)).to(home) for arena, groups in steps.items()
        ]
        norms = torch.stack(squares).sum(0).sqrt_()
        for arena, groups in steps.items():
            if arena.buffers.has_moments:
                clip_and_step(arena.buffers, groups, norms.to(arena.device))
        for seat, key, step in in_8bit:
            segment = seat.segments[key]
            seat.states_8bit[key].clip_and_step(
                segment.flat_parameters, segment.flat_gradients, step, norms[step.trial]
            )
        return {seat: seat.stepped(norm) for seat, norm in zip(seats, norms, strict=True)}

    @torch.no_grad()
    def evaluate(self, seats: Sequence[Seat | None], blocks: Sequence[Block]) -> list[float]:
        """Token-weighted NLL (nats per token) of each seat on the same blocks; None is the untouched base.

        The sum over all tokens is divided once, so the result does not depend on how the tokens are batched.
        """
        count = sum(block.num_targets for block in blocks)
        if count == 0:
            raise ModelError("the evaluation set has no target token")
        totals = [torch.zeros((), dtype=torch.float64, device=self._home_of_logits) for _ in seats]
        for block in blocks:
            for places, layout in self._passes(seats, [block] * len(seats), self.layout):
                here = [seats[i] for i in places]
                targets = block.target_ids.repeat(len(here))
                with self._pass(here, layout) as (hidden, _):
                    targets = targets.to(hidden.device, non_blocking=True)
                    nll = [
                        F.cross_entropy(
                            self._head_logits(hidden[turn], rows).float(), targets[turn], reduction="none"
                        )
                        for turn, rows in self._turns(here, layout.blocks)
                    ]
                parts = torch.cat(nll).view(len(here), -1) if nll else hidden.new_zeros(len(here), 1)
                for place, part in zip(places, parts, strict=True):
                    # Kept on the device: the host waits once, for the result.
                    totals[place] += _sum(part)
        means: list[float] = (torch.stack(totals) / count).tolist()
        return means

    @torch.no_grad()
    def log_probabilities(self, seat: Seat | None, block: Block) -> tuple[Tensor, Tensor]:
        """Log-probability (n,) of each target of a block by one seat, and whether no token is likelier."""
        found: list[Tensor] = []
        likeliest: list[Tensor] = []
        for _, layout in self._passes([seat], [block], self.layout):
            with self._pass([seat], layout) as (hidden, _):
                targets = block.target_ids.to(hidden.device, non_blocking=True)
                for turn, rows in self._turns([seat], layout.blocks):
                    logits = self._head_logits(hidden[turn], rows).float()
                    found.append(-F.cross_entropy(logits, targets[turn], reduction="none"))
                    likeliest.append(logits.argmax(-1) == targets[turn])
        return torch.cat(found), torch.cat(likeliest)

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

        `stop_token_ids` end a continuation, the tokenizer's end token where none are given. `batch_size`
        prompts of every seat are continued at a time, all of them by default (`generation.py`).
        """
        if stop_token_ids is None:
            end = self.base.tokenizer.eos_token_id
            stop_token_ids = () if end is None else (end,)
        return self.generator.generate(
            seats, prompts, max_new_tokens, frozenset(stop_token_ids), batch_size or max(1, len(prompts))
        )


def _sum(part: Tensor) -> Tensor:
    """Of a block's losses, as it would be alone: a CUDA sum begins where its memory is aligned."""
    return part.clone().sum() if part.is_cuda else part.sum()


def max_logits(device_type: str) -> int:
    """Logits that exist at once on a device, in elements."""
    return min(MAX_LOGITS, MAX_LOGITS_ON_CPU) if device_type == "cpu" else MAX_LOGITS


def may_share_a_turn(vocabulary: int, device: torch.device) -> bool:
    """Whether a row's log-softmax is the same wherever it lies: CUDA reads 16 aligned bytes at a time."""
    return device.type != "cuda" or vocabulary % 4 == 0
