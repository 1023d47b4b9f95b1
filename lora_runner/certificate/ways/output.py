"""Ways to compute the loss of each position from its logits, and the logits' gradient."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from lora_runner.certificate.ways.case import Case, RowCase, Setting, Tensors
from lora_runner.certificate.ways.references import rounding

LARGEST = {"cuda": 1 << 26, "cpu": 1 << 22}
"""Elements of logits."""


def _losses(logits: Tensor, targets: Tensor, weights: Tensor) -> Tensors:
    """As a pack: losses in float32, and the gradient of the logits for these weights of the losses."""
    leaf = logits.detach().requires_grad_()
    with torch.enable_grad():
        losses = F.cross_entropy(leaf.float(), targets, reduction="none")
    (grad,) = torch.autograd.grad(losses, leaf, weights)
    return losses.detach(), grad


def one_chunk(setting: Setting) -> Iterator[Case]:
    """The rows of all trials in one tensor; CUDA reads 16 bytes at a time, so a row's place may matter."""

    def function(logits: Tensor, targets: Tensor, weights: Tensor, *, sizes: Sequence[int]) -> Tensors:
        return _losses(logits, targets, weights)

    yield _case(setting, function)


def chunk_a_trial(setting: Setting) -> Iterator[Case]:
    """The rows of each trial in a tensor of their own."""

    def function(logits: Tensor, targets: Tensor, weights: Tensor, *, sizes: Sequence[int]) -> Tensors:
        parts = zip(*(x.split(tuple(sizes)) for x in (logits, targets, weights)), strict=True)
        found = [_losses(part.clone(), *rest) for part, *rest in parts]
        return tuple(map(torch.cat, zip(*found, strict=True)))

    yield _case(setting, function)


def _case(setting: Setting, function: Callable[..., Tensors]) -> RowCase:
    vocabulary = setting.sizes.vocabulary

    def draw(rows: int) -> Tensors:
        weights = setting.normal(rows, dtype=torch.float32)
        return setting.normal(rows, vocabulary, scale=3.0), setting.integers(vocabulary, rows), weights

    def reference(logits: Tensor, targets: Tensor, weights: Tensor) -> Tensors:
        logs = logits.log_softmax(-1)
        grad = logs.exp()
        grad[torch.arange(len(targets), device=targets.device), targets] -= 1
        return -logs.gather(1, targets[:, None])[:, 0], grad * weights[:, None]

    return RowCase(
        f"cross entropy of {vocabulary} logits",
        draw=draw,
        function=function,
        reference=reference,
        bound=rounding(setting.dtype, 1, vocabulary),
        work_per_row=2.0 * vocabulary * setting.dtype.itemsize,
        max_rows=LARGEST[setting.device.type] // vocabulary,
    )
