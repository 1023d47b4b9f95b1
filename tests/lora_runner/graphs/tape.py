"""The seam of graphs on a CPU: operations are recorded with their tensors, and replayed into the same ones.

As with a CUDA graph, a replay runs no Python of the model and finds every tensor where the capture had it.
And what a graph has made is overwritten as soon as a graph other than its successor runs, as in a shared
memory pool: here with NaN. Stricter than CUDA, tensors made from Python data are refused.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from lora_runner.graphs.capture_guard import CaptureError
from lora_runner.kernels.launch import observed

FROM_PYTHON = (torch.tensor, torch.as_tensor, torch.from_numpy, torch.scalar_tensor)
READS = (Tensor.tolist, Tensor.numpy, Tensor.__array__, Tensor.pin_memory)


class TapePool:
    """Tapes that stand for the graphs of one memory pool.

    A CUDA graph computes nothing while it is captured, so `state` gives the tensors that a capture must leave
    as they were.
    """

    def __init__(self, state: Callable[[], Sequence[Tensor]] = tuple) -> None:
        self.state = state
        self._tapes: list[weakref.ref[Tape]] = []
        self.last: Tape | None = None
        self.num_replays = 0

    @property
    def tapes(self) -> list[Tape]:
        """Those that have not been deleted."""
        return [tape for reference in self._tapes if (tape := reference()) is not None]

    def new_graph(self) -> Tape:
        assert self.tapes or not self._tapes, "a pool whose graphs are deleted takes no others"
        tape = Tape(self)
        self._tapes.append(weakref.ref(tape))
        return tape

    def wait(self) -> None:
        self.last = None


class Tape:
    """A recorded sequence of operations and kernel launches."""

    def __init__(self, pool: TapePool) -> None:
        self._pool = pool
        self._steps: list[Callable[[], None]] = []
        self.made: list[Tensor] = []
        """Tensors that recorded operations allocated."""
        self.names: list[str] = []
        """Of the operations and kernels, in order."""

    def capture(self, function: Callable[[], None]) -> None:
        assert not self._steps, "a graph is captured once"
        before = [(tensor, tensor.clone()) for tensor in self._pool.state()]
        try:
            with observed(self._launched), _NoPythonData(), _Recording(self):
                function()
        finally:
            with torch.no_grad():
                for tensor, values in before:
                    tensor.copy_(values)

    def replay(self) -> None:
        pool = self._pool
        for tape in pool.tapes:
            if tape is not pool.last:  # the graph just before keeps what its backward pass needs
                _overwrite(tape.made)
        pool.last = self
        pool.num_replays += 1
        with torch.no_grad():
            for step in self._steps:
                step()

    def _launched(self, name: str, run: Callable[[], None]) -> None:
        self.names.append(name)
        self._steps.append(run)

    def record(self, func: Any, args: Sequence[Any], kwargs: dict[str, Any], out: Any) -> None:
        """An operation that has given `out`."""
        self.names.append(func.name())
        if func._schema.is_mutable:
            self._steps.append(lambda: func(*args, **kwargs))
            return
        inputs = {x.untyped_storage()._cdata for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)}
        outs = [x for x in tree_leaves(out) if isinstance(x, Tensor)]
        fresh = [x.untyped_storage()._cdata not in inputs for x in outs]
        if not any(fresh):  # views stay views of what they were
            return
        targets = [x.detach() for x in outs]
        self.made += [x for x, is_fresh in zip(targets, fresh, strict=True) if is_fresh]
        if "empty" in func.__name__:
            self._steps.append(lambda: _overwrite(targets))
            return

        def again() -> None:
            found = [x for x in tree_leaves(func(*args, **kwargs)) if isinstance(x, Tensor)]
            for target, value, is_fresh in zip(targets, found, fresh, strict=True):
                assert target.shape == value.shape, f"{func.name()}: another shape in a replay"
                if is_fresh:
                    target.copy_(value)

        self._steps.append(again)


def _overwrite(tensors: Sequence[Tensor]) -> None:
    with torch.no_grad():
        for tensor in tensors:
            tensor.fill_(float("nan") if tensor.is_floating_point() else 0)


class _Recording(TorchDispatchMode):
    def __init__(self, tape: Tape) -> None:
        super().__init__()
        self._tape = tape

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func is torch.ops.aten.lift_fresh.default:
            raise CaptureError("a tensor is made from Python data")
        out = func(*args, **(kwargs or {}))
        self._tape.record(func, args, kwargs or {}, out)
        return out


class _NoPythonData(TorchFunctionMode):
    """Refuses tensors made from Python data, and data taken out of tensors: on a device, both wait."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func in FROM_PYTHON:
            raise CaptureError(f"{func.__name__} makes a tensor from Python data")
        if func in READS:
            raise CaptureError(f"{func.__name__} reads on the host")
        return func(*args, **(kwargs or {}))
