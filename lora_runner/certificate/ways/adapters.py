"""Ways to compute the LoRA branches of all trials: outputs, and the gradients of inputs and adapters."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate

import numpy as np
import torch
from torch import Tensor

from lora_runner.certificate.ways.case import Case, Setting, Tensors
from lora_runner.certificate.ways.references import rounding
from lora_runner.kernels.adapter_group import AdapterGroup
from lora_runner.layers.block_matmul import Blocks, matmul_by_block, outer_by_block
from lora_runner.layers.dropout import LEVELS, keep_mask, mix, threshold
from lora_runner.layout.pass_tables import BlockAdapter, PassShape, PassTables

RANKS = (8, 16, 16, 48)
"""Of blocks in one pass, where ranks may differ; most often `RANK`."""
RANK, DROPOUT, SCALE, MICRO_STEP = 16, 0.1, 1.5, 3


class AdapterCase(Case):
    """Siblings with an adapter each.

    A block is the input (t, in), the gradient (t, sum of out), a seed, and A (r, in) and B (out, r) of every
    sibling. Results are the branches' outputs, the input's gradient, and the gradients of every A and B.
    """

    unit = "TFLOP/s"
    ranks_text = f"rank {RANK}"

    def __init__(self, setting: Setting, in_features: int, outs: Sequence[int], *, dropout: float) -> None:
        self.setting, self.in_features, self.outs, self.dropout = setting, in_features, tuple(outs), dropout
        dropped = f", dropout {dropout:g}" if dropout else ""
        self.name = f"{self.ranks_text}, {in_features} to {' and '.join(map(str, outs))}{dropped}"
        self.bound = rounding(setting.dtype, 4, max(in_features, *outs))
        self.scale = SCALE * LEVELS / (LEVELS - self.limit)

    @property
    def limit(self) -> int:
        """An element is dropped when its 16 random bits are below this."""
        return threshold(self.dropout)

    def draw_rank(self) -> int:
        """The rank of a new block's adapters."""
        return RANK

    def draw(self, num_rows: int) -> Tensors:
        normal, rank = self.setting.normal, self.draw_rank()
        x, grad = normal(num_rows, self.in_features), normal(num_rows, sum(self.outs))
        adapters = [
            part
            for out in self.outs
            for part in (
                normal(rank, self.in_features, scale=self.in_features**-0.5, dtype=torch.float32),
                normal(out, rank, scale=rank**-0.5, dtype=torch.float32),
            )
        ]
        return (x, grad, self.setting.integers(1 << 30, 1).cpu(), *adapters)

    def key(self, block: Tensors, sibling: int) -> tuple[int, int]:
        """The key of a sibling's dropout mask."""
        return mix(int(block[2]), sibling), MICRO_STEP

    def reference(self, block: Tensors) -> Tensors:
        # Adapters are used in the dtype of the input.
        adapters = [x.to(block[0].dtype).double() for x in block[3:]]
        x, grad = block[0].double(), block[1].double()
        out, dx, gradients = [], torch.zeros_like(x), []
        for sibling, (a, b, dy) in enumerate(
            zip(adapters[::2], adapters[1::2], grad.split(self.outs, 1), strict=True)
        ):
            kept = x
            if self.limit:
                mask = keep_mask(tuple(x.shape), self.limit, self.key(block, sibling), x.device)  # type: ignore[arg-type]
                kept = x * mask
            shrunk, dshrunk = self.scale * kept @ a.t(), self.scale * dy @ b
            out.append(shrunk @ b.t())
            gradients += [dshrunk.t() @ kept, dy.t() @ shrunk]
            dx += (dshrunk @ a) * mask if self.limit else dshrunk @ a
        return (torch.cat(out, 1), dx, *gradients)

    def work(self, num_rows: int) -> float:
        # Shrinking and expanding, each forward and for two gradients.
        return 2.0 * 3 * RANK * num_rows * (len(self.outs) * self.in_features + sum(self.outs))


@dataclass(frozen=True)
class Prepared:
    """The rows of all blocks end to end, and the adapters of each sibling side by side."""

    blocks: Sequence[Tensors]
    sizes: tuple[int, ...]
    x: Tensor
    grad: Tensor
    adapters: list[tuple[Tensor, Tensor]]
    """(G, r, in) and (G, out, r)."""


class GroupedAdapters(AdapterCase):
    """Matmuls grouped by block, as on the general path."""

    def prepare(self, blocks: Sequence[Tensors]) -> Prepared:
        dtype = self.setting.dtype
        banks = [torch.stack(parts).to(dtype) for parts in zip(*(block[3:] for block in blocks), strict=True)]
        return Prepared(
            blocks,
            tuple(len(block[0]) for block in blocks),
            torch.cat([block[0] for block in blocks]),
            torch.cat([block[1] for block in blocks]),
            list(zip(banks[::2], banks[1::2], strict=True)),
        )

    def compute(self, prepared: Prepared) -> Tensors:
        x, rows = prepared.x, Blocks(prepared.sizes)
        out, dx, gradients = [], torch.zeros_like(x), []
        for sibling, (a, b) in enumerate(prepared.adapters):
            grad = prepared.grad[:, sum(self.outs[:sibling]) : sum(self.outs[: sibling + 1])].contiguous()
            mask = self._mask(prepared, sibling)
            kept = x if mask is None else x * mask
            shrunk = matmul_by_block(kept, a.transpose(1, 2), rows) * SCALE
            out.append(matmul_by_block(shrunk, b.transpose(1, 2), rows))
            dshrunk = matmul_by_block(grad, b, rows) * SCALE
            through = matmul_by_block(dshrunk, a, rows)
            dx += through if mask is None else through * mask
            gradients += [outer_by_block(dshrunk, kept, rows), outer_by_block(grad, shrunk, rows)]
        return (torch.cat(out, 1), dx, *gradients)

    def _mask(self, prepared: Prepared, sibling: int) -> Tensor | None:
        if not self.limit:
            return None
        shapes = [(size, self.in_features) for size in prepared.sizes]
        masks = [
            keep_mask(shape, self.limit, self.key(block, sibling), prepared.x.device)
            for shape, block in zip(shapes, prepared.blocks, strict=True)
        ]
        return torch.cat(masks).to(prepared.x.dtype) * (LEVELS / (LEVELS - self.limit))

    def results(self, prepared: Prepared, computed: Tensors) -> list[Tensors]:
        by_row = zip(*(rows.split(prepared.sizes) for rows in computed[:2]), strict=True)
        return [(*rows, *(x[index] for x in computed[2:])) for index, rows in enumerate(by_row)]


def grouped(setting: Setting) -> Iterator[Case]:
    """As on the general path."""
    return _cases(setting, GroupedAdapters)


@dataclass(frozen=True)
class FusedPrepared:
    """The rows of all blocks end to end, and what the kernels read: flat buffers and tables."""

    sizes: tuple[int, ...]
    ranks: tuple[int, ...]
    x: Tensor
    grad: Tensor
    parameters: Tensor
    """(N,) fp32: one segment a block, in which A and B of each sibling lie end to end."""
    tables: PassTables
    group: AdapterGroup


class FusedAdapters(AdapterCase):
    """The kernels of the fused path, which find every block's adapters, of any rank, in tables."""

    ranks_text = f"ranks {min(RANKS)} to {max(RANKS)}"

    def draw_rank(self) -> int:
        return RANKS[int(self.setting.integers(len(RANKS), 1))]

    def prepare(self, blocks: Sequence[Tensors]) -> FusedPrepared:
        device, per_rank = self.setting.device, [self.in_features + out for out in self.outs]
        segments = [torch.cat([part.flatten() for part in block[3:]]) for block in blocks]
        starts, count = list(accumulate(map(len, segments), initial=0)), len(self.outs)
        ranks = tuple(len(block[3]) for block in blocks)
        sizes = tuple(len(block[0]) for block in blocks)
        keys = [np.array([self.key(block, i)[0] for i in range(count)], dtype=np.int64) for block in blocks]
        owned = [
            BlockAdapter(
                start=starts[index],
                rank=ranks[index],
                scale=self.scale,
                drop_limit=self.limit,
                dropout_keys=keys[index] if self.limit else None,
                micro_step=MICRO_STEP,
            )
            for index in range(len(blocks))
        ]
        # The columns that are computed follow from the largest rank of the pass.
        shape = PassShape(sum(sizes), len(sizes), count, -(-max(ranks) // 16) * 16)
        return FusedPrepared(
            sizes,
            ranks,
            torch.cat([block[0] for block in blocks]),
            torch.cat([block[1] for block in blocks]),
            torch.cat(segments),
            PassTables.of(shape, list(zip(owned, sizes, strict=True)), device),
            AdapterGroup.of(
                self.in_features,
                self.outs,
                before=list(accumulate(per_rank, initial=0))[:-1],
                layers=range(count),
                device=device,
            ),
        )

    def compute(self, prepared: FusedPrepared) -> Tensors:
        from lora_runner.kernels.lora.expand import expand_inputs_, expand_outputs_
        from lora_runner.kernels.lora.gradients import add_adapter_gradients
        from lora_runner.kernels.lora.shrink import shrink_gradients, shrink_inputs

        x, grad, parameters = prepared.x, prepared.grad, prepared.parameters
        where = prepared.group, prepared.tables, prepared.tables.shape.rank_columns
        out, dx, gradients = torch.zeros_like(grad), torch.zeros_like(x), torch.zeros_like(parameters)
        shrunk = shrink_inputs(x, parameters, *where)
        expand_outputs_(out, shrunk, parameters, *where)
        dshrunk = shrink_gradients(grad, parameters, *where)
        add_adapter_gradients(gradients, x, grad, shrunk, dshrunk, *where)
        expand_inputs_(dx, dshrunk, parameters, *where)
        return out, dx, gradients

    @property
    def _per_rank(self) -> int:
        """Elements of all siblings' A and B for each rank."""
        return sum(self.in_features + out for out in self.outs)

    def results(self, prepared: FusedPrepared, computed: Tensors) -> list[Tensors]:
        out, dx, gradients = computed
        found = []
        segments = gradients.split([rank * self._per_rank for rank in prepared.ranks])
        rows = zip(out.split(prepared.sizes), dx.split(prepared.sizes), strict=True)
        for own, rank, segment in zip(rows, prepared.ranks, segments, strict=True):
            shapes = [shape for n in self.outs for shape in ((rank, self.in_features), (n, rank))]
            parts = segment.split([a * b for a, b in shapes])
            found.append((*own, *(part.view(shape) for part, shape in zip(parts, shapes, strict=True))))
        return found


def fused(setting: Setting) -> Iterator[Case]:
    """As on the fused path."""
    return _cases(setting, FusedAdapters)


def _cases(setting: Setting, kind: type[AdapterCase]) -> Iterator[Case]:
    for in_features, outs in setting.sizes.siblings:
        for dropout in (0.0, DROPOUT) if len(outs) > 1 else (0.0,):
            yield kind(setting, in_features, outs, dropout=dropout)
