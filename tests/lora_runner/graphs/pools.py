"""Where passes are captured in tests: tapes on a CPU, CUDA graphs on a GPU."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor

from lora_runner.graphs.graph import CudaGraphPool, GraphPool
from lora_runner.pack.pack import Pack
from tests.lora_runner.devices import DEVICE
from tests.lora_runner.graphs.tape import TapePool


class Pools:
    """Makes the pools of a pack, and keeps them; `state` is what a tape must leave as it was."""

    def __init__(self, state: Callable[[], Sequence[Tensor]]) -> None:
        self._state = state
        self._made: list[GraphPool] = []

    @classmethod
    def of(cls, pack: Callable[[], Pack]) -> Pools:
        """Of a pack that is made after them."""

        def gradients() -> list[Tensor]:
            buffers = pack().adapter_buffers, pack().embedding_buffers
            return [buffer.gradients for buffer in buffers if buffer is not None]

        return cls(gradients)

    def new(self) -> GraphPool:
        self._made.append(TapePool(self._state) if DEVICE.type == "cpu" else CudaGraphPool(DEVICE))
        return self._made[-1]

    def assert_used(self, pack: Pack) -> None:
        """Passes of `pack` have been captured, and replayed as far as a tape can tell."""
        assert pack.captures()[1] == ""
        assert self._made
        tapes = [pool for pool in self._made if isinstance(pool, TapePool)]
        assert not tapes or sum(tape.num_replays for tape in tapes) > 2
