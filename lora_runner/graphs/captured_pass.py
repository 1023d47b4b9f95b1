"""One pass captured: a forward graph, the graph of its backward pass, and where both read and write.

Autograd is recorded like anything else: the backward graph holds what `Tensor.backward` launched on the
tensors that the forward graph keeps. Gradients of trained weights are no outputs: layers add them to the flat
buffers, in a replay as in any other pass.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from lora_runner.graphs.capture_guard import CaptureGuard
from lora_runner.graphs.graph import Graph, GraphPool


@dataclass(frozen=True)
class HiddenStates:
    """Sizes, dtype and device of a pass's hidden states (T, h)."""

    num_rows: int
    num_columns: int
    dtype: torch.dtype
    device: torch.device

    @classmethod
    def of(cls, hidden: Tensor) -> HiddenStates:
        num_rows, num_columns = hidden.shape
        return cls(num_rows, num_columns, hidden.dtype, hidden.device)


class HiddenBuffers:
    """Memory for hidden states and for their gradient, shared by all captured passes.

    A longer pass gets longer buffers; captured passes keep those that they were captured with.
    """

    def __init__(self) -> None:
        self._buffers: dict[tuple[torch.dtype, torch.device], tuple[Tensor, Tensor]] = {}

    def views(self, like: HiddenStates) -> tuple[Tensor, Tensor]:
        """Hidden states and gradient of one pass, without contents; valid until the next pass."""
        key, shape = (like.dtype, like.device), (like.num_rows, like.num_columns)
        size = math.prod(shape)
        if key not in self._buffers or self._buffers[key][0].numel() < size:
            hidden, gradient = (torch.zeros(size, dtype=like.dtype, device=like.device) for _ in range(2))
            self._buffers[key] = hidden, gradient
        hidden, gradient = self._buffers[key]
        return hidden[:size].view(shape), gradient[:size].view(shape)


class CapturedPass:
    """A pass over inputs that stay where they are."""

    def __init__(
        self,
        compute: Callable[[], Tensor],
        hidden: HiddenStates,
        pool: GraphPool,
        buffers: HiddenBuffers,
        *,
        training: bool,
    ) -> None:
        """`compute` returns the hidden states; they need a gradient if a decoder layer is trained.

        Raises CaptureError for work that no graph can record, and what `compute` or CUDA raises.
        """
        self._hidden, self._gradient = buffers.views(hidden)
        self._anchor = torch.zeros((), device=hidden.device, requires_grad=True)
        """Gets no gradient; makes autograd call the backward graph."""
        self._forward = pool.new_graph()
        self._backward: Graph | None = None
        computed: list[Tensor] = []

        def forward() -> None:
            with CaptureGuard(hidden.device.type), torch.set_grad_enabled(training):
                computed.append(compute())
                self._hidden.copy_(computed[0].detach())

        def backward() -> None:
            with CaptureGuard(hidden.device.type):
                # Popped: what it holds is free for the pool's other graphs as soon as it is recorded.
                computed.pop().backward(self._gradient)

        self._forward.capture(forward)
        if training and computed[0].requires_grad:
            self._backward = pool.new_graph()
            self._backward.capture(backward)

    def run(self) -> Tensor:
        """The hidden states of the inputs as they are now, to be read before any other pass."""
        if self._backward is None:
            self._forward.replay()
            return self._hidden.detach()
        hidden: Tensor = _Replay.apply(self._anchor, self)  # type: ignore[no-untyped-call]
        return hidden


class _Replay(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, anchor: Tensor, captured: CapturedPass) -> Tensor:
        ctx.captured = captured
        captured._forward.replay()
        return captured._hidden.detach()

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, gradient: Tensor) -> tuple[None, None]:
        captured = ctx.captured
        captured._gradient.copy_(gradient)
        captured._backward.replay()
        return None, None
