"""A pack on the meta device: the real code runs on tensors without memory, and their bytes are counted.

The answer is the largest number of bytes alive at once, so nothing that a step keeps or allocates is modelled
here a second time. Only one or two layers of every kind run; each of the others adds what one of its kind
keeps.

Not counted is what no tensor holds: a kernel's scratch memory, an allocator's rounding and gaps.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from lora_runner.base.liger import use_liger
from lora_runner.base.load_model import Base, BaseSpec, vocabulary_size
from lora_runner.base.model_structure import decoder_of, text_config
from lora_runner.base.quantization import NONE, Quantization
from lora_runner.base.target_modules import find_target_modules
from lora_runner.config import TrialConfig
from lora_runner.fused.compute_path import Machine
from lora_runner.graphs.buckets import padded_rows
from lora_runner.layout.pack_layout import Block
from lora_runner.memory.meta_device import META, LiveBytes, no_launches
from lora_runner.memory.sizes import CapturedBytes, Workload
from lora_runner.memory.watched_pack import StepBytes, WatchedPack
from lora_runner.optim.flat_buffers import SegmentAllocator
from lora_runner.pack.pack import MicroBatch
from lora_runner.pack.seat import LORA, Seat


class DryRun:
    """A pack without memory that runs with any number of equal seats.

    `model` is on the meta device, and is modified; `device` and `machine` are the simulated ones; `is_here`:
    whether this machine has them. Raises
    ModelError as a real pack would, and whatever a model's code raises on tensors without values.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        workload: Workload,
        *,
        device: torch.device,
        dtype: torch.dtype,
        quantization: Quantization,
        machine: Machine,
        is_here: bool = True,
    ) -> None:
        # With fused kernels the pack decides. Liger patches a model's Python module, for CPUs too, so it is
        # left out for a GPU that is only named: then the peak is a little too high.
        if is_here and not machine.has_fused_kernels:
            use_liger(model, device)
        trained = find_target_modules(model, workload.target_modules)
        wanted = {id(model.get_submodule(name)) for name in trained}
        # A resident copy is used like a weight that was never quantized.
        in_passes = NONE if workload.resident_weights else quantization
        quantized = {id(module) for module in in_passes.layers(model).values()}
        self._layers, self._removed = _keep_one_of_each_kind(model, wanted, quantized)
        # By full name: a pattern may have matched only some layers of the whole model.
        targets = tuple(name for name, module in model.named_modules() if id(module) in wanted)
        base = _frozen(model, dtype, in_passes, quantized)
        # The seats' own state is not counted here, so its kind does not matter. Nothing is captured here.
        plain = replace(
            workload,
            target_modules=targets,
            resident_weights=False,
            embedding_optimizer_bits=32,
            graphs=False,
        )
        self._live = LiveBytes()
        with self._live, no_launches():
            self._pack = WatchedPack(base, plain, machine, self._live)
        self.captures = workload.graphs and self._pack.path.is_fused and machine.new_pool is not None
        """Whether the real pack captures passes."""
        self.path = self._pack.path
        """Of the layers that were kept: how each part is computed."""
        self._pack.attention = replace(self._pack.attention, device_type=device.type)
        self._seat = self._pack.new_seat(
            TrialConfig(
                learning_rate=1.0,
                embedding_learning_rate=1.0,
                max_steps=1,
                lora_r=workload.lora_r,
                lora_alpha=1,
                lora_dropout=workload.lora_dropout,
            )
        )
        self._marks: list[int] = []
        for layer in self._layers:
            layer.register_forward_pre_hook(self._mark)
        if self._layers:
            self._layers[-1].register_forward_hook(self._mark)

    def train(self, seats: int, batch_size: int, length: int) -> int:
        """Peak bytes in a step of `seats` seats, beside all weights and the seats' own state."""
        return self._train(seats, batch_size, length).peak

    def captured(self, seats: int, batch_size: int, length: int) -> CapturedBytes:
        """The same of a step whose passes are captured, with the rows of the largest bucket."""
        step, rows = self._train(seats, batch_size, length), seats * batch_size * length
        # Hidden states and their gradient are kept in buffers beside the pass, one more copy of each follows
        # from reading one and writing the other.
        reserved = (max(step.forward, step.backward) + 2 * step.hidden) * padded_rows(rows) / rows
        return CapturedBytes(math.ceil(reserved), step.loss - step.kept + 2 * step.hidden)

    def _train(self, seats: int, batch_size: int, length: int) -> StepBytes:
        block = self._block(batch_size, length)
        share = MicroBatch(block, block.num_tokens, max(1, block.num_targets))
        self._marks = []
        with self._live, no_launches():
            step = self._pack.watched_step(dict.fromkeys(self._copies(seats), share))
        left = [after - before for before, after in pairwise(self._marks[: len(self._layers) + 1])]
        removed = sum(count * left[kind] for kind, count in self._removed.items())
        return replace(
            step,
            forward=step.forward + removed,
            loss=step.loss + removed,
            backward=step.backward and step.backward + removed,
            kept=step.kept + removed,
        )

    def evaluate(self, seats: int, batch_size: int, length: int) -> int:
        """The same for an evaluation, in which layers keep nothing."""
        block = self._block(batch_size, length)
        return self._peak(seats, lambda copies: self._pack.evaluate(copies, [block]))

    def _peak(self, seats: int, run: Callable[[list[Seat]], object]) -> int:
        with self._live, no_launches():
            copies = self._copies(seats)
            with self._live.watch() as peak:
                run(copies)
                return peak()

    def _copies(self, number: int) -> list[Seat]:
        """Copies of one seat, since the state of the seats is counted elsewhere.

        Their adapters are adjacent, as in a pack that has just been filled.
        """
        seats = [copy.copy(self._seat) for _ in range(number)]
        for key, own in self._seat.segments.items():
            if key[0] == LORA:
                allocator = SegmentAllocator(META)
                for seat in seats:
                    segment = allocator.allocate(own.shapes, to_come=number * own.size)
                    seat.segments = {**seat.segments, key: segment}
        return seats

    def _block(self, batch_size: int, length: int) -> Block:
        vocabulary = vocabulary_size(self._pack.model)
        # As many distinct tokens as possible: each takes a row of a trained embedding.
        ids = (torch.arange(batch_size * length) % vocabulary).view(batch_size, length).tolist()
        return Block.of([(row, row) for row in ids], META)

    def _mark(self, *_: object) -> None:
        self._marks.append(self._live.live)


def _keep_one_of_each_kind(
    model: PreTrainedModel, *marked: set[int]
) -> tuple[list[nn.Module], dict[int, int]]:
    """Keep the last decoder layer of each kind, and at least two: memory peaks in the last layers.

    `marked` are ids of modules that make a difference. Returns the layers kept, and for indices into them how
    many of the same kind were removed. Where the layers cannot be identified, all are kept and none is
    listed.
    """
    config, decoder = text_config(model), decoder_of(model)
    lists = [m for m in decoder.modules() if isinstance(m, nn.ModuleList)]
    layers = next((found for found in lists if len(found) == config.num_hidden_layers), None)
    if layers is None or not _can_set_types(config):
        return [], {}
    types = getattr(config, "layer_types", None) or [None] * len(layers)
    kinds = [_kind(layer, types[index], marked) for index, layer in enumerate(layers)]
    last = {kind: index for index, kind in enumerate(kinds)}
    stay = sorted({*last.values(), max(0, len(layers) - 2)})
    removed = {
        stay.index(index): kinds.count(kind) - sum(kinds[i] == kind for i in stay)
        for kind, index in last.items()
    }
    kept = [layers[index] for index in stay]
    holder, _, name = next(n for n, m in decoder.named_modules() if m is layers).rpartition(".")
    setattr(decoder.get_submodule(holder), name, nn.ModuleList(kept))
    config.num_hidden_layers = len(kept)
    if types[0] is not None:
        config.layer_types = [types[index] for index in stay]
    return kept, removed


def _can_set_types(config: object) -> bool:
    """Whether the list of layer types can be set; some configurations derive it (Jamba, Mamba)."""
    name = getattr(config, "attribute_map", {}).get("layer_types", "layer_types")
    derived = getattr(type(config), name, None)
    return not isinstance(derived, property) or derived.fset is not None


def _kind(layer: nn.Module, type_: str | None, marked: Sequence[set[int]]) -> tuple[object, ...]:
    shapes = tuple((name, tuple(parameter.shape)) for name, parameter in layer.named_parameters())
    marks = tuple(
        (name, index)
        for name, module in layer.named_modules()
        for index, ids in enumerate(marked)
        if id(module) in ids
    )
    return type(layer), type_, shapes, marks


def _frozen(
    model: PreTrainedModel, dtype: torch.dtype, quantization: Quantization, quantized: set[int]
) -> Base:
    """The model as `load_base` would load it; `quantized` are the ids of quantized layers."""
    model.to(dtype).requires_grad_(False).eval()
    model.config.use_cache = False
    if quantized:  # then Jamba and FalconMamba call layers instead of reading their weights
        model.config._is_quantized = True
    for name, module in list(model.named_modules()):
        linear = module
        if isinstance(module, Conv1D):  # bitsandbytes transposes it
            into, out = module.weight.shape
            linear = nn.Linear(into, out, device=META, dtype=dtype)
            model.set_submodule(name, linear)
        if id(module) in quantized:
            assert isinstance(linear, nn.Linear)
            linear.weight = quantization.meta_weight(linear.weight.shape, dtype)
    return Base(
        model=model,
        tokenizer=None,  # type: ignore[arg-type]  # no text here
        spec=BaseSpec(model=""),
        compute_dtype=dtype,
        device=META,
        num_parameters=0,
    )
