"""Ways to compute the LoRA branches of all trials: outputs, and the gradients of inputs and adapters."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lora_runner.certificate.case import Case, Setting, Tensors
from lora_runner.certificate.ways.references import rounding
from lora_runner.layers.block_matmul import Blocks, matmul_by_block, outer_by_block
from lora_runner.layers.dropout import LEVELS, keep_mask, mix, threshold

RANK, DROPOUT, SCALE, MICRO_STEP = 16, 0.1, 1.5, 3


class AdapterCase(Case):
    """Siblings with an adapter each.

    A block is the input (t, in), the gradient (t, sum of out), a seed, and A (r, in) and B (out, r) of every
    sibling. Results are the branches' outputs, the input's gradient, and the gradients of every A and B.
    """

    unit = "TFLOP/s"

    def __init__(self, setting: Setting, in_features: int, outs: Sequence[int], *, dropout: float) -> None:
        self.setting, self.in_features, self.outs, self.dropout = setting, in_features, tuple(outs), dropout
        dropped = f", dropout {dropout:g}" if dropout else ""
        self.name = f"rank {RANK}, {in_features} to {' and '.join(map(str, outs))}{dropped}"
        self.bound = rounding(setting.dtype, 4, max(in_features, *outs))
        self.scale = SCALE * LEVELS / (LEVELS - self.limit)

    @property
    def limit(self) -> int:
        """An element is dropped when its 16 random bits are below this."""
        return threshold(self.dropout)

    def draw(self, num_rows: int) -> Tensors:
        normal = self.setting.normal
        x, grad = normal(num_rows, self.in_features), normal(num_rows, sum(self.outs))
        adapters = [
            part
            for out in self.outs
            for part in (
                normal(RANK, self.in_features, scale=self.in_features**-0.5, dtype=torch.float32),
                normal(out, RANK, scale=RANK**-0.5, dtype=torch.float32),
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
    for in_features, outs in setting.sizes.siblings:
        for dropout in (0.0, DROPOUT) if len(outs) > 1 else (0.0,):
            yield GroupedAdapters(setting, in_features, outs, dropout=dropout)
