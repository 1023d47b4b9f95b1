"""One computation as a pack makes it: for blocks of rows of several trials at once."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lora_runner.certificate.model_sizes import ModelSizes

Tensors = tuple[Tensor, ...]


@dataclass(frozen=True)
class Setting:
    """Where ways are checked, and on what."""

    device: torch.device
    dtype: torch.dtype
    sizes: ModelSizes
    generator: torch.Generator
    """On `device`; draws all inputs."""

    def normal(self, *shape: int, scale: float = 1.0, dtype: torch.dtype | None = None) -> Tensor:
        """Fresh normal values, on the device."""
        drawn = torch.randn(shape, generator=self.generator, device=self.device, dtype=torch.float32)
        return (drawn * scale).to(dtype or self.dtype)

    def integers(self, high: int, *shape: int) -> Tensor:
        """Fresh integers from 0 to `high` - 1, on the device."""
        return torch.randint(high, shape, generator=self.generator, device=self.device)


class Case(ABC):
    """A computation with its inputs. A block is the inputs of one trial, a tuple of tensors."""

    name: str
    unit = "GB/s"
    """Of the speed: TFLOP/s, or GB/s of what must be read and written."""
    max_rows: int | None = None
    """The most rows that a pass has; None: any number."""
    not_computed: str | None = None
    """Why no model computes this case this way, in words; None: one does."""
    bound: float
    """Largest relative error of results against float64: root of the summed squares of differences."""

    @abstractmethod
    def draw(self, num_rows: int) -> Tensors:
        """Fresh random inputs of a block of `num_rows` rows."""

    @abstractmethod
    def prepare(self, blocks: Sequence[Tensors]) -> Any:
        """What a pass of these blocks has before the computation."""

    @abstractmethod
    def compute(self, prepared: Any) -> Any:
        """The computation itself, which is timed."""

    @abstractmethod
    def results(self, prepared: Any, computed: Any) -> list[Tensors]:
        """The results of each block."""

    @abstractmethod
    def reference(self, block: Tensors) -> Tensors:
        """The results of a block, in float64."""

    @abstractmethod
    def work(self, num_rows: int) -> float:
        """Floating-point operations, or bytes, for `num_rows` rows in all."""

    def by_block(self, blocks: Sequence[Tensors]) -> list[Tensors]:
        """The results of each block of one pass."""
        prepared = self.prepare(blocks)
        return self.results(prepared, self.compute(prepared))


@dataclass(frozen=True)
class Pass:
    """The rows of all blocks end to end, and how many each block has."""

    rows: Tensors
    sizes: tuple[int, ...]


class RowCase(Case):
    """A computation whose inputs and results have one row for each row of a block."""

    def __init__(
        self,
        name: str,
        *,
        draw: Callable[[int], Tensors],
        function: Callable[..., Tensors],
        reference: Callable[..., Tensors],
        bound: float,
        work_per_row: float,
        fixed_work: float = 0.0,
        unit: str = "GB/s",
        max_rows: int | None = None,
    ) -> None:
        """`function` takes the rows of all blocks and `sizes=`; `reference` the rows in float64."""
        self.name, self.bound, self.unit, self.max_rows = name, bound, unit, max_rows
        self._draw, self._function, self._reference = draw, function, reference
        self._work_per_row, self._fixed_work = work_per_row, fixed_work

    def draw(self, num_rows: int) -> Tensors:
        return self._draw(num_rows)

    def prepare(self, blocks: Sequence[Tensors]) -> Pass:
        rows = tuple(torch.cat(parts) for parts in zip(*blocks, strict=True))
        return Pass(rows, tuple(len(block[0]) for block in blocks))

    def compute(self, prepared: Pass) -> Tensors:
        return self._function(*prepared.rows, sizes=prepared.sizes)

    def results(self, prepared: Pass, computed: Tensors) -> list[Tensors]:
        return list(zip(*(result.split(prepared.sizes) for result in computed), strict=True))

    def reference(self, block: Tensors) -> Tensors:
        return self._reference(*(x.double() if x.is_floating_point() else x for x in block))

    def work(self, num_rows: int) -> float:
        return self._fixed_work + self._work_per_row * num_rows
