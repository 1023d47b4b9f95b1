"""The decoder of a pack, captured for the buckets that are used, and computed as usual for all others.

Both ways launch the same kernels on the same numbers, so which of them computes a pass changes no bit.

A pass is computed as usual the first time its bucket is seen and captured the second time: the first pass
compiles kernels and makes lazy tables, which a capture cannot, and a bucket that never comes again costs no
capture (0.2 to 0.8 s for an 8B base on an H200).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

import torch
from torch import Tensor

from lora_runner.errors import first_line
from lora_runner.graphs.captured_pass import CapturedPass, HiddenBuffers, HiddenStates
from lora_runner.graphs.graph import GraphPool

MAX_BUCKETS = 32
"""Captured passes."""
STALE_PASSES = 8 * MAX_BUCKETS
"""A captured pass gives way to another bucket when it has not been used for so many passes, not before.

Otherwise an evaluation of more buckets than fit would capture all of them again each time.
"""

Inputs = TypeVar("Inputs")


class PassKey(Hashable, Protocol):
    """All sizes that a captured pass has built in; passes with equal keys differ in their inputs alone."""

    @property
    def training(self) -> bool:
        """Whether a backward pass follows."""


Key = TypeVar("Key", bound=PassKey)


@dataclass
class _Bucket(Generic[Inputs]):
    inputs: Inputs
    captured: CapturedPass
    last_used: int = 0


class CapturedDecoder(Generic[Key, Inputs]):
    """Computes a decoder's hidden states, by a graph where one has been captured.

    `new_inputs` makes the inputs of passes with one key: tensors that keep their place when other contents
    are written. `compute` gives the hidden states of inputs. `new_pool` is None where nothing is to be
    captured, for `reason`.
    """

    def __init__(
        self,
        compute: Callable[[Inputs], Tensor],
        new_inputs: Callable[[Key], Inputs],
        new_pool: Callable[[], GraphPool] | None,
        *,
        reason: str = "",
    ) -> None:
        self._compute, self._new_inputs, self._new_pool = compute, new_inputs, new_pool
        self.reason = reason
        """Why nothing is captured; empty while passes are."""
        self._pool: GraphPool | None = None
        self._buffers = HiddenBuffers()
        self._buckets: OrderedDict[Key, _Bucket[Inputs]] = OrderedDict()
        """Captured passes, least recently used first."""
        self._seen: dict[Key, HiddenStates] = {}
        """Passes that have been computed as usual."""
        self._built_in: Hashable = None
        self._passes = 0

    @property
    def num_captured(self) -> int:
        """Passes that are captured now."""
        return len(self._buckets)

    def hidden_states(self, key: Key, write: Callable[[Inputs], object], built_in: Hashable = None) -> Tensor:
        """The decoder's hidden states, as `compute` returns them; to be read before any other pass.

        `write` writes the contents of the pass to its inputs. `built_in` is what a captured pass has built in
        that neither key nor inputs say, such as the addresses of the flat buffers: all captured passes are
        dropped when it changes. Raises what `write` and `compute` raise.
        """
        if built_in != self._built_in:
            self.drop()
            self._built_in = built_in
        self._passes += 1
        bucket = self._buckets.get(key)
        if bucket is not None:
            write(bucket.inputs)
        else:
            inputs = self._new_inputs(key)
            write(inputs)
            if key in self._seen and self._may_capture():
                bucket = self._capture(key, inputs)
        if bucket is None:
            with torch.set_grad_enabled(key.training):
                hidden = self._compute(inputs)
            self._seen[key] = HiddenStates.of(hidden)
            return hidden
        self._buckets.move_to_end(key)
        bucket.last_used = self._passes
        return bucket.captured.run()

    def drop(self) -> None:
        """Free all captured passes and their memory."""
        if self._pool is not None:
            self._pool.wait()
        self._buckets.clear()
        self._seen.clear()
        self._pool, self._buffers = None, HiddenBuffers()

    def stop(self, reason: str) -> bool:
        """Free all captured passes and capture none any more; whether there were any."""
        there_were = self.num_captured > 0
        self.drop()
        self._new_pool, self.reason = None, self.reason or reason
        return there_were

    def _may_capture(self) -> bool:
        """Whether another pass may be captured; makes room by dropping one that has long not been used."""
        if self._new_pool is None:
            return False
        if len(self._buckets) < MAX_BUCKETS:
            return True
        oldest = next(iter(self._buckets))
        if self._passes - self._buckets[oldest].last_used < STALE_PASSES:
            return False
        assert self._pool is not None
        self._pool.wait()
        del self._buckets[oldest]
        return True

    def _capture(self, key: Key, inputs: Inputs) -> _Bucket[Inputs] | None:
        """Capture a pass. Where that fails, nothing is captured any more, and `reason` says why."""
        assert self._new_pool is not None
        if self._pool is None:
            self._pool = self._new_pool()
        try:
            captured = CapturedPass(
                lambda: self._compute(inputs),
                self._seen[key],
                self._pool,
                self._buffers,
                training=key.training,
            )
            self._buckets[key] = _Bucket(inputs, captured)
            return self._buckets[key]
        except torch.OutOfMemoryError as error:
            reason = f"out of memory while a pass was captured: {first_line(error)}"
        except Exception as error:
            # Whatever refuses to be recorded; the pass itself is computed below, where an error is its own.
            reason = f"a pass could not be captured: {type(error).__name__}: {first_line(error)}"
        # Here, where no traceback holds what the pass had computed.
        self.stop(reason)
        return None
