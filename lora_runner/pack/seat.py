"""A seat: one trial's own weights, optimizer state, schedule and counters on the shared base.

Its parameters, gradients and moments are segments of the pack's flat buffers (`optim/flat_buffers.py`), one
per parameter group and device. The matrices are views into them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import torch
from torch import Tensor

from lora_runner.config import TrialConfig
from lora_runner.layers.dropout import mix
from lora_runner.layers.embeddings import PackedSavedModule
from lora_runner.layers.linear import PackedLinear
from lora_runner.optim.adamw_8bit import States8bit
from lora_runner.optim.flat_buffers import Segment, SegmentAllocator, segment_size
from lora_runner.optim.group_step import GroupStep
from lora_runner.optim.schedules import schedule_factor

LORA, EMBEDDINGS = "lora", "embeddings"
"""The two parameter groups; each has its own peak learning rate, both follow one schedule."""
SegmentKey = tuple[str, torch.device]
"""Parameter group and device."""
RANK_MULTIPLE = 8
"""Ranks are padded with zeros to a multiple of this: grouped matmuls need 16-byte strides."""

MANY_ELEMENTS = 1 << 22
"""A seat with more on a device is drawn in threads; fewer take a few milliseconds."""


@dataclass(frozen=True)
class StepStats:
    """What one optimizer step of a seat did."""

    step: int
    """Updates so far, including this one."""
    loss: float
    """Token-weighted NLL of the step's accumulation window."""
    grad_norm: float
    """Global norm before clipping."""
    learning_rate: float
    num_tokens: int
    """Tokens of the window."""


class PendingStats:
    """StepStats whose loss and norm are still being copied from the device; reading them waits."""

    def __init__(self, step: int, figures: Tensor, learning_rate: float, num_tokens: int) -> None:
        self.step, self.learning_rate, self.num_tokens = step, learning_rate, num_tokens
        self._figures = figures  # (2,): loss, norm
        self._arrived: torch.cuda.Event | None = None
        if figures.is_cuda:
            self._figures = torch.empty(2, pin_memory=True)
            self._figures.copy_(figures, non_blocking=True)
            self._arrived = torch.cuda.Event()
            self._arrived.record(torch.cuda.current_stream(figures.device))  # the stream of the copy

    def read(self) -> StepStats:
        """The figures as numbers."""
        if self._arrived is not None:
            self._arrived.synchronize()
        loss, norm = self._figures.tolist()
        return StepStats(self.step, loss, norm, self.learning_rate, self.num_tokens)


class Seat:
    """One trial on the shared base.

    Where the buffers have to grow, they grow for `seats_to_come` more seats like this one, if memory allows.
    Raises TrialConfigError when the schedule refuses its arguments, torch.OutOfMemoryError when the buffers
    cannot grow.
    """

    def __init__(
        self,
        config: TrialConfig,
        linears: Sequence[PackedLinear],
        saved: Sequence[PackedSavedModule],
        allocators: Mapping[SegmentKey, SegmentAllocator],
        *,
        seats_to_come: int = 0,
    ) -> None:
        self.config = config
        self.scaling = config.lora_scaling
        self.dropout = config.lora_dropout
        self.seed = config.seed
        self.padded_rank = -(-config.lora_r // RANK_MULTIPLE) * RANK_MULTIPLE
        self.step = 0
        self.micro_step = 0
        """Micro-batches computed so far; also the position in the data."""
        self.num_tokens = 0
        self.last_update: PendingStats | None = None
        """The latest update's; None before the first one of this process."""
        self._window_loss: list[Tensor] = []
        self._window_tokens = 0
        self._factor = schedule_factor(config)
        self.token_indices = saved[0].token_indices if saved else ()
        """Ids of the only tokens whose rows are trained; empty: no such restriction."""
        self._rates = {LORA: config.learning_rate, EMBEDDINGS: config.embedding_learning_rate or 0.0}
        self.lora_offsets: dict[str, int] = {}
        """By layer, the offset of its A among the adapters of its device; its B follows."""
        self._saved_names: dict[str, tuple[SegmentKey, str]] = {}
        """By embedding or output layer, the segment and name of what is trained of it."""
        self.states_8bit: dict[SegmentKey, States8bit] = {}
        """Moments of the segments whose buffers have none."""
        self.segments = self._allocate(
            linears, [m for m in saved if m.tied_to is None], allocators, seats_to_come
        )
        self._start_from_base(linears, saved)

    def _allocate(
        self,
        linears: Sequence[PackedLinear],
        saved: Sequence[PackedSavedModule],
        allocators: Mapping[SegmentKey, SegmentAllocator],
        seats_to_come: int,
    ) -> dict[SegmentKey, Segment]:
        r = self.padded_rank
        shapes: dict[SegmentKey, dict[str, tuple[int, ...]]] = {}
        for linear in linears:
            here = shapes.setdefault((LORA, linear.weight.device), {})
            here[f"{linear.name}.lora_A"] = (r, linear.in_features)
            here[f"{linear.name}.lora_B"] = (linear.out_features, r)
        for module in saved:
            key = EMBEDDINGS, module.weight.device
            shapes.setdefault(key, {})[module.parameter_name] = module.trained_shape
            self._saved_names[module.name] = key, module.parameter_name
        # Seats to come are taken to be like this one; a seat's groups may share an allocator.
        to_come = dict.fromkeys(allocators.values(), 0)
        for key, named in shapes.items():
            to_come[allocators[key]] += (1 + seats_to_come) * segment_size(named)
        segments = {}
        for key, named in shapes.items():
            allocator = allocators[key]
            to_come[allocator] -= segment_size(named)
            segments[key] = allocator.allocate(named, to_come=to_come[allocator])
            if not allocator.buffers.has_moments:
                self.states_8bit[key] = States8bit(segments[key].size, key[1])
        for linear in linears:
            offsets = segments[LORA, linear.weight.device].offsets
            self.lora_offsets[linear.name] = offsets[f"{linear.name}.lora_A"]
        return segments

    def _start_from_base(self, linears: Sequence[PackedLinear], saved: Sequence[PackedSavedModule]) -> None:
        for (group, device), segment in self.segments.items():
            if group == LORA and device.type != "meta":  # a dry run draws nothing
                self._draw_lora(segment, linears)
        for module in saved:
            if module.tied_to is None:
                self.saved[module.name].copy_(module.trained_start())

    def _draw_lora(self, segment: Segment, linears: Sequence[PackedLinear]) -> None:
        """Draw all A of a device as peft does, uniform as nn.Linear's own init; B is zero: the base's output.

        Each layer has a generator of its own, and all are drawn on the host: the same on every device.
        """
        flat = segment.flat_parameters[: segment.numel]
        drawn = flat if flat.is_cpu else torch.zeros(segment.numel)
        matrices = drawn.split([math.prod(shape) for shape in segment.shapes.values()])
        named = dict(zip(segment.shapes, matrices, strict=True))

        def draw(index: int, linear: PackedLinear) -> None:
            generator = torch.Generator().manual_seed(mix(self.seed, index))
            bound = 1 / math.sqrt(linear.in_features)
            rows = named[f"{linear.name}.lora_A"].narrow(0, 0, self.config.lora_r * linear.in_features)
            rows.uniform_(-bound, bound, generator=generator)

        here = [(i, linear) for i, linear in enumerate(linears) if linear.weight.device == flat.device]
        if segment.numel < MANY_ELEMENTS:
            for index, linear in here:
                draw(index, linear)
        else:  # a generator uses one core
            with ThreadPoolExecutor() as pool:
                list(pool.map(draw, *zip(*here, strict=True)))
        if drawn is not flat:
            flat.copy_(drawn)

    # --- views ----------------------------------------------------------------------------------------

    @property
    def lora(self) -> dict[torch.device, tuple[Tensor, Tensor]]:
        """All adapters of a device, end to end, and their gradients."""
        return {
            device: (segment.flat_parameters, segment.flat_gradients)
            for (group, device), segment in self.segments.items()
            if group == LORA
        }

    @property
    def saved(self) -> dict[str, Tensor]:
        """By layer, the trained copy of an embedding or output layer, or its trained rows."""
        return {
            layer: self.segments[key].parameters[name] for layer, (key, name) in self._saved_names.items()
        }

    @property
    def saved_gradients(self) -> dict[str, Tensor]:
        """The gradients of `saved`."""
        return {layer: self.segments[key].gradients[name] for layer, (key, name) in self._saved_names.items()}

    @property
    def parameters(self) -> Mapping[str, Tensor]:
        """Trained matrices by name, in peft's shapes; live views, made when asked for."""
        return _Unpadded(self, "parameters")

    @property
    def gradients(self) -> Mapping[str, Tensor]:
        """Gradients of the open accumulation window, by the same names; live views."""
        return _Unpadded(self, "gradients")

    def without_padding(self, name: str, view: Tensor) -> Tensor:
        """A matrix in its trained shape: rows or columns up to a multiple of the padded rank are left out."""
        r = self.config.lora_r
        return view[:r] if name.endswith(".lora_A") else view[:, :r] if name.endswith(".lora_B") else view

    @property
    def learning_rate(self) -> float:
        """The LoRA group's, in the next update."""
        return self.config.learning_rate * self._factor(self.step)

    @property
    def finished(self) -> bool:
        return self.step >= self.config.max_steps

    @property
    def num_trained(self) -> int:
        return sum(parameter.numel() for parameter in self.parameters.values())

    # --- a window and its end -------------------------------------------------------------------------

    def add_micro_batch(self, loss: Tensor, num_tokens: int) -> None:
        """Count a micro-batch whose gradient has been added; `loss` is its part of the window's mean."""
        self._window_loss.append(loss.detach())
        self._window_tokens += num_tokens
        self.micro_step += 1

    @property
    def window_is_full(self) -> bool:
        return len(self._window_loss) == self.config.gradient_accumulation_steps

    def restart_window(self) -> None:
        """Drop the gradient of an interrupted window; its micro-batches are computed again."""
        self.micro_step -= len(self._window_loss)
        self._open_window()

    def group_steps(self, trial: int) -> list[tuple[SegmentKey, GroupStep]]:
        """The next update of each segment; `trial` is the seat's index in the joint update."""
        config, factor = self.config, self._factor(self.step)
        return [
            (
                key,
                GroupStep(
                    trial=trial,
                    start=segment.start,
                    stop=segment.stop,
                    learning_rate=self._rates[key[0]] * factor,
                    beta1=config.adam_beta1,
                    beta2=config.adam_beta2,
                    epsilon=config.adam_epsilon,
                    weight_decay=config.weight_decay,
                    max_grad_norm=config.max_grad_norm,
                    step=self.step + 1,
                ),
            )
            for key, segment in self.segments.items()
        ]

    def stepped(self, norm: Tensor) -> PendingStats:
        """Record an update with this gradient norm, and open the next accumulation window."""
        loss, rate = torch.stack(self._window_loss).sum(), self.learning_rate
        self.step += 1
        self.num_tokens += self._window_tokens
        figures = torch.stack([loss, norm.to(loss.device)])
        self.last_update = PendingStats(self.step, figures, rate, self._window_tokens)
        self._open_window()
        return self.last_update

    def _open_window(self) -> None:
        self._window_loss, self._window_tokens = [], 0
        for segment in self.segments.values():
            segment.flat_gradients.zero_()

    # --- checkpoints ----------------------------------------------------------------------------------

    def state_tensors(self) -> Iterator[tuple[str, Tensor]]:
        """Every tensor a checkpoint needs, by name: parameters and both moments, as live views."""
        for index, (key, segment) in enumerate(self.segments.items()):
            kinds = {"parameter": segment.parameters}
            if key in self.states_8bit:
                for name, tensor in self.states_8bit[key].state_tensors().items():
                    yield f"{name}.8bit.{index}", tensor
            else:
                kinds |= {"exp_avg": segment.exp_avg, "exp_avg_sq": segment.exp_avg_sq}
            for kind, views in kinds.items():
                for name, view in views.items():
                    yield f"{kind}.{name}", self.without_padding(name, view)

    def load_state(
        self, tensors: Mapping[str, Tensor], *, step: int, micro_step: int, num_tokens: int
    ) -> None:
        """Load what `state_tensors` gave.

        All or nothing: ValueError names a tensor that is missing, of another shape or dtype, or unknown.
        """
        targets = dict(self.state_tensors())
        if unmatched := sorted(set(targets) ^ set(tensors)):
            raise ValueError(f"{unmatched[0]} is missing or does not belong to this seat")
        for name, target in targets.items():
            if tensors[name].shape != target.shape or tensors[name].dtype != target.dtype:
                raise ValueError(
                    f"{name} is {tensors[name].dtype} of shape {tuple(tensors[name].shape)}, "
                    f"expected {target.dtype} of {tuple(target.shape)}"
                )
        for name, target in targets.items():
            target.copy_(tensors[name])
        self.step, self.micro_step, self.num_tokens = step, micro_step, num_tokens


class _Unpadded(Mapping[str, Tensor]):
    """The matrices of a seat in one buffer by name, without the padding of ranks."""

    def __init__(self, seat: Seat, buffer: str) -> None:
        self._seat, self._buffer = seat, buffer

    def __getitem__(self, name: str) -> Tensor:
        for segment in self._seat.segments.values():
            if name in segment.shapes:
                return self._seat.without_padding(name, segment.views(self._buffer)[name])
        raise KeyError(name)

    def __iter__(self) -> Iterator[str]:
        for segment in self._seat.segments.values():
            yield from segment.shapes

    def __len__(self) -> int:
        return sum(len(segment.shapes) for segment in self._seat.segments.values())
