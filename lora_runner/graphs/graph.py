"""A recorded sequence of device work that is launched again as a whole.

A CUDA graph launches thousands of kernels in one call, so the host no longer decides how fast the device
works. Every replay uses the addresses of the capture: what changes between passes is written into the same
tensors before.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Protocol

import torch


class Graph(Protocol):
    """Work that is recorded once and replayed any number of times."""

    def capture(self, function: Callable[[], None]) -> None:
        """Record what `function` launches; nothing is computed."""

    def replay(self) -> None:
        """Launch it again, on the current stream; the host does not wait."""


class GraphPool(Protocol):
    """Graphs that share the memory of their intermediate tensors, so only one of them is in use at a time.

    Once all its graphs have been deleted, a pool takes no others.
    """

    def new_graph(self) -> Graph: ...

    def wait(self) -> None:
        """Wait for the device: a graph that is running must not be deleted."""


class CudaGraph:
    """A graph of CUDA work, torch's `CUDAGraph`.

    Raises what `function` raises, and RuntimeError where CUDA refuses to record something.
    """

    def __init__(self, pool: CudaGraphPool) -> None:
        self._pool = pool
        self._graph = torch.cuda.CUDAGraph()

    def capture(self, function: Callable[[], None]) -> None:
        pool = self._pool
        before = torch.cuda.current_stream(pool.device)
        try:
            self._capture(function, pool)
        finally:
            # Where CUDA refuses to record something, torch leaves the stream of the capture current.
            torch.cuda.set_stream(before)

    def _capture(self, function: Callable[[], None], pool: CudaGraphPool) -> None:
        with (
            torch.cuda.device(pool.device),
            # "relaxed" lets other threads go on, which report that this worker lives, and lets a kernel be
            # loaded. What it no longer refuses is refused by `CaptureGuard`.
            torch.cuda.graph(self._graph, pool.handle, pool.stream, capture_error_mode="relaxed"),
        ):
            function()

    def replay(self) -> None:
        with torch.cuda.device(self._pool.device):
            self._graph.replay()


@cache
def _capture_stream(device: torch.device) -> torch.cuda.Stream:
    """The stream of all captures on a device.

    They share memory only on one stream, and cuBLAS keeps a workspace for each that it has ever seen.
    """
    return torch.cuda.Stream(device)


class CudaGraphPool:
    """CUDA graphs on one device that share one memory pool, whose memory is free once all are deleted."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.handle = torch.cuda.graph_pool_handle()
        self.stream = _capture_stream(device)

    def new_graph(self) -> Graph:
        return CudaGraph(self)

    def wait(self) -> None:
        torch.cuda.synchronize(self.device)
