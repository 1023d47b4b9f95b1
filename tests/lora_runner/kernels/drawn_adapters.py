"""Drawn trials with adapters on sibling layers, laid out in a pass, and what their branches must compute."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from lora_runner.kernels.adapter_group import AdapterGroup
from lora_runner.kernels.lora.expand import expand_inputs_, expand_outputs_
from lora_runner.kernels.lora.gradients import add_adapter_gradients
from lora_runner.kernels.lora.shrink import shrink_gradients, shrink_inputs
from lora_runner.layers.dropout import LEVELS, keep_mask
from lora_runner.layout.pass_tables import BlockAdapter, PassShape, PassTables
from tests.lora_runner.kernels.interpreter import DEVICE

CPU = torch.device("cpu")
NUM_LAYERS = 5
SEGMENT = 1024
"""Adapters start at multiples of it."""


@dataclass(frozen=True)
class Layers:
    """Sibling layers among the trained ones of a model."""

    in_features: int
    out_features: tuple[int, ...]
    before: tuple[int, ...]
    """Elements per rank of the adapters before each sibling's, which need not be adjacent."""
    indices: tuple[int, ...]
    total: int
    """Elements per rank of all adapters of a trial."""

    @property
    def group(self) -> AdapterGroup:
        return AdapterGroup.of(
            self.in_features, self.out_features, before=self.before, layers=self.indices, device=DEVICE
        )

    def columns(self, sibling: int) -> slice:
        first = sum(self.out_features[:sibling])
        return slice(first, first + self.out_features[sibling])


def draw_layers(draw: random.Random, in_features: int, out_features: Sequence[int]) -> Layers:
    before = []
    total = 16 * draw.randrange(4)
    for out in out_features:
        before.append(total)
        total += in_features + out + 16 * draw.randrange(3)
    indices = draw.sample(range(NUM_LAYERS), len(out_features))
    return Layers(in_features, tuple(out_features), tuple(before), tuple(indices), total)


@dataclass
class Trial:
    """One block of a pass; rank 0 is the plain base."""

    rank: int
    """Padded."""
    scale: float
    drop_limit: int
    dropout_keys: np.ndarray
    micro_step: int
    parameters: Tensor  # (rank * total,) fp32
    gradients: Tensor
    x: Tensor
    dy: Tensor
    out: Tensor
    """Of the frozen base, to which the branches are added; likewise dx."""
    dx: Tensor

    def matrices(self, layers: Layers, sibling: int, flat: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """A (r, in) and B (out, r) of the parameters, or of another flat tensor like them."""
        flat = self.parameters if flat is None else flat
        start, out = self.rank * layers.before[sibling], layers.out_features[sibling]
        a, b = flat[start : start + self.rank * (layers.in_features + out)].split(
            [self.rank * layers.in_features, self.rank * out]
        )
        return a.view(self.rank, layers.in_features), b.view(out, self.rank)

    def keep(self, layers: Layers, sibling: int) -> Tensor:
        """(rows, in) bool"""
        key = int(self.dropout_keys[layers.indices[sibling]]), self.micro_step
        return keep_mask((len(self.x), layers.in_features), self.drop_limit, key, CPU).to(DEVICE)


def draw_trial(
    draw: random.Random,
    layers: Layers,
    dtype: torch.dtype,
    *,
    rank: int,
    rows: int,
    drops: bool,
    lora_r: int | None = None,
) -> Trial:
    """A trial whose rank is padded from `lora_r`: A's rows and B's columns beyond it are zeros."""
    limit = draw.randrange(1, LEVELS // 2) if drops else 0
    parameters = torch.randn(rank * layers.total, device=DEVICE)
    num_outputs = sum(layers.out_features)
    trial = Trial(
        rank=rank,
        scale=draw.choice([0.25, 2.0]) * LEVELS / (LEVELS - limit),
        drop_limit=limit,
        dropout_keys=np.array([draw.getrandbits(63) for _ in range(NUM_LAYERS)]),
        micro_step=draw.randrange(1000),
        parameters=parameters,
        gradients=torch.randn_like(parameters),
        x=torch.randn(rows, layers.in_features, device=DEVICE).to(dtype),
        dy=torch.randn(rows, num_outputs, device=DEVICE).to(dtype),
        out=torch.randn(rows, num_outputs, device=DEVICE).to(dtype),
        dx=torch.randn(rows, layers.in_features, device=DEVICE).to(dtype),
    )
    for sibling in range(len(layers.out_features) if lora_r is not None else 0):
        a, b = trial.matrices(layers, sibling)
        a[lora_r:] = 0
        b[:, lora_r:] = 0
    return trial


@dataclass
class Branches:
    """What the kernels made of one trial, only its own ranks."""

    s: list[Tensor]
    """(rows, r) of each sibling."""
    ds: list[Tensor]
    out: Tensor
    dx: Tensor
    gradients: Tensor

    def same_bits(self, other: Branches) -> bool:
        mine = [*self.s, *self.ds, self.out, self.dx, self.gradients]
        others = [*other.s, *other.ds, other.out, other.dx, other.gradients]
        return all(map(same_bits, mine, others))


def same_bits(left: Tensor, right: Tensor) -> bool:
    """Also tells -0 from 0, and lets NaN be equal."""
    return torch.equal(left.contiguous().view(torch.uint8), right.contiguous().view(torch.uint8))


@contextmanager
def unwritten_memory_is_nan() -> Iterator[None]:
    """So that reads of rank columns which nothing wrote show."""
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)


@dataclass
class Pass:
    """Trials laid out in one pass, and what the kernels computed for each."""

    layers: Layers
    trials: Sequence[Trial]
    padding: int = 0
    """Rows without a block."""
    spare_blocks: int = 1
    rank_columns: int = 64
    gap: int = 0
    """Segments of the flat buffers before the first trial's and between them."""
    beside: int = 0
    """Columns of other tensors between the rows of x, dy, out and dx."""
    branches: list[Branches] = field(init=False)
    gradients: Tensor = field(init=False)
    starts: list[int] = field(init=False)

    def __post_init__(self) -> None:
        trials, group = self.trials, self.layers.group
        dtype = trials[0].x.dtype
        size = self.gap * SEGMENT
        self.starts = []
        for trial in trials:
            self.starts.append(size)
            size += (-(-len(trial.parameters) // SEGMENT) + self.gap) * SEGMENT
        parameters = torch.full((max(size, SEGMENT),), torch.nan, device=DEVICE)
        self.gradients = torch.full_like(parameters, torch.nan)
        for trial, start in zip(trials, self.starts, strict=True):
            parameters[start : start + len(trial.parameters)] = trial.parameters
            self.gradients[start : start + len(trial.parameters)] = trial.gradients
        sizes = [len(trial.x) for trial in trials]
        tables = self._tables(sizes)
        x, dy, out, dx = (self._rows(name, dtype) for name in ("x", "dy", "out", "dx"))
        with unwritten_memory_is_nan():
            s = shrink_inputs(x, parameters, group, tables, self.rank_columns)
            expand_outputs_(out, s, parameters, group, tables, self.rank_columns)
            ds = shrink_gradients(dy, parameters, group, tables, self.rank_columns)
            expand_inputs_(dx, ds, parameters, group, tables, self.rank_columns)
            add_adapter_gradients(self.gradients, x, dy, s, ds, group, tables, self.rank_columns)
        self.branches = []
        self.padded = out[sum(sizes) :], dx[sum(sizes) :]
        parts = (part.split([*sizes, self.padding]) for part in (s, ds, out, dx))
        for index, (own_s, own_ds, own_out, own_dx) in enumerate(zip(*parts, strict=True)):
            if index == len(trials):
                continue
            trial, start = trials[index], self.starts[index]
            self.branches.append(
                Branches(
                    s=[part[:, : trial.rank] for part in own_s.split(self.rank_columns, dim=1)],
                    ds=[part[:, : trial.rank] for part in own_ds.split(self.rank_columns, dim=1)],
                    out=own_out,
                    dx=own_dx,
                    gradients=self.gradients[start : start + len(trial.parameters)],
                )
            )

    def of(self, trial: Trial) -> Branches:
        """What the kernels computed for one of the trials."""
        return next(
            branches for each, branches in zip(self.trials, self.branches, strict=True) if each is trial
        )

    def _rows(self, name: str, dtype: torch.dtype) -> Tensor:
        parts = [getattr(trial, name) for trial in self.trials]
        width = parts[0].shape[1]
        rows = torch.cat([*parts, torch.ones(self.padding, width, dtype=dtype, device=DEVICE)])
        return torch.cat([rows, rows.new_full((len(rows), self.beside), torch.nan)], dim=1)[:, :width]

    def _tables(self, sizes: Sequence[int]) -> PassTables:
        shape = PassShape(
            num_rows=sum(sizes) + self.padding,
            num_blocks=len(sizes) + (self.padding > 0) + self.spare_blocks,
            num_layers=NUM_LAYERS,
            rank_columns=self.rank_columns,
        )
        adapters = [
            BlockAdapter(
                start, trial.rank, trial.scale, trial.drop_limit, trial.dropout_keys, trial.micro_step
            )
            if trial.rank
            else None
            for trial, start in zip(self.trials, self.starts, strict=True)
        ]
        return PassTables.of(shape, list(zip(adapters, sizes, strict=True)), DEVICE)
