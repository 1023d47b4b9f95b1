"""The decoder of a pack, captured for the buckets that are used, and computed as usual where it cannot be.

Both ways launch the same kernels on the same numbers, so which of them computes a pass changes no bit.

The first pass of each kind (training, evaluation, a token after cached ones; each for a largest rank) is
computed as usual, which compiles kernels and makes what is made once; every other bucket is captured when it
is first seen. To compute each bucket once as usual would need the memory of a whole pass beside what is
reserved for captured ones.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass, replace
from typing import Generic, Protocol, TypeVar

import torch
from torch import Tensor

from lora_runner.errors import first_line
from lora_runner.graphs.capture_guard import CaptureError
from lora_runner.graphs.captured_pass import CapturedPass, HiddenBuffers, HiddenStates
from lora_runner.graphs.graph import GraphPool

MAX_BUCKETS = 32
"""Captured passes."""
STALE_PASSES = 8 * MAX_BUCKETS
"""A captured pass gives way to another bucket when it has not been used for so many passes, not before.

Otherwise an evaluation of more buckets than fit would capture all of them again each time.
"""
MAX_FAILURES = 3
"""Captures that CUDA may refuse, one after another, before none is tried any more.

The pass is then computed as usual, which compiles what could not be compiled in a capture.
"""

Inputs = TypeVar("Inputs")


class PassKey(Hashable, Protocol):
    """All sizes that a captured pass has built in; passes with equal keys differ in their inputs alone."""

    @property
    def num_rows(self) -> int:
        """Rows of the pass, with padding."""

    @property
    def training(self) -> bool:
        """Whether a backward pass follows."""

    @property
    def kind(self) -> Hashable:
        """Passes of one kind launch the same kernels."""

    @property
    def recurs(self) -> bool:
        """Whether it pays, and is possible, to capture passes with this key."""


Key = TypeVar("Key", bound=PassKey)


@dataclass
class _Bucket(Generic[Inputs]):
    inputs: Inputs
    captured: CapturedPass
    last_used: int = 0


class CapturedDecoder(Generic[Key, Inputs]):
    """Computes a decoder's hidden states (T, h), by a graph where one has been captured.

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
        self._stopped: Callable[[], GraphPool] | None = None
        """`new_pool`, while nothing is captured for lack of memory."""
        self._pool: GraphPool | None = None
        self._buffers = HiddenBuffers()
        self._buckets: OrderedDict[Key, _Bucket[Inputs]] = OrderedDict()
        """Captured passes, least recently used first."""
        self._hidden: dict[Hashable, HiddenStates] = {}
        """Of a pass that has been computed as usual, by its kind."""
        self._built_in: Hashable = None
        self._passes = self._failures = 0
        self._ran_out_at = -STALE_PASSES
        """The last training pass for which memory ran out while it was captured."""

    @property
    def captures(self) -> bool:
        """Whether passes are captured, so that it pays to round their sizes up to a bucket's."""
        return self._new_pool is not None

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
        if key.training and key.kind not in self._hidden and self._buckets:
            self.drop()  # computed as usual, it needs the memory of a whole pass
        bucket = self._buckets.get(key)
        if bucket is not None:
            write(bucket.inputs)
        else:
            inputs = self._new_inputs(key)
            write(inputs)
            if key.recurs and key.kind in self._hidden and self._has_room(key):
                bucket = self._capture(key, inputs)
                if bucket is None:
                    write(inputs)  # once for each time that Python computes
        if bucket is None:
            with torch.set_grad_enabled(key.training):
                hidden = self._compute(inputs)
            self._hidden[key.kind] = HiddenStates.of(hidden)
            return hidden
        self._buckets.move_to_end(key)
        bucket.last_used = self._passes
        return bucket.captured.run()

    def drop(self) -> bool:
        """Free all captured passes, to be captured again when they are used; whether there were any."""
        there_were = self.num_captured > 0
        if self._pool is not None:
            self._pool.wait()
        self._buckets.clear()
        self._pool, self._buffers = None, HiddenBuffers()
        return there_were

    def drop_those(self, of: Callable[[Key], bool]) -> None:
        """Free the captured passes whose keys `of` picks, as when what they have built in is to be freed."""
        keys = [key for key in self._buckets if of(key)]
        if len(keys) == len(self._buckets):
            self.drop()
        elif keys:
            assert self._pool is not None
            self._pool.wait()
            for key in keys:
                del self._buckets[key]

    def stop(self, reason: str) -> bool:
        """Free all captured passes and capture none any more; whether there were any."""
        there_were = self.drop()
        if self.captures:
            self._stopped, self._new_pool, self.reason = self._new_pool, None, reason
        return there_were

    def resume(self) -> None:
        """Capture again after a `stop`, now that there is more memory."""
        if self._stopped is not None:
            self._new_pool, self._stopped, self.reason = self._stopped, None, ""

    def _has_room(self, key: Key) -> bool:
        """Whether another pass may be captured; makes room where captured ones have to give way."""
        if not self.captures:
            return False
        training = [captured.num_rows for captured in self._buckets if captured.training]
        if key.training and training and key.num_rows > max(training):
            # A shared pool fits its largest pass only if that one came first: a longer tensor does not fit
            # where a shorter one was.
            self.drop()
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
        """Capture a pass; None where that fails, `reason` says why once no other capture will be tried."""
        assert self._new_pool is not None
        if self._pool is None:
            self._pool = self._new_pool()
        hidden = replace(self._hidden[key.kind], num_rows=key.num_rows)
        is_final = lacks_memory = False
        is_alone = not self._buckets
        try:
            captured = CapturedPass(
                lambda: self._compute(inputs), hidden, self._pool, self._buffers, training=key.training
            )
            self._buckets[key] = _Bucket(inputs, captured)
            self._failures = 0
            return self._buckets[key]
        except torch.OutOfMemoryError as error:
            reason = f"out of memory while a pass was captured: {first_line(error)}"
            # Others beside it are given up first, for training once in so many passes: else two buckets that
            # do not fit together would be captured again and again.
            lacks_memory = is_alone or (key.training and self._passes - self._ran_out_at < STALE_PASSES)
            if key.training:
                self._ran_out_at = self._passes
        except CaptureError as error:
            reason, is_final = f"a pass cannot be captured: {error}", True
        except Exception as error:
            # Whatever else cannot be recorded; the pass itself is computed below, where an error is its own.
            reason = f"a pass could not be captured: {type(error).__name__}: {first_line(error)}"
            self._failures += 1
            is_final = self._failures >= MAX_FAILURES
        # Here, where no traceback holds what the pass had computed.
        if lacks_memory:
            self.stop(reason)
        else:
            self.drop()
        if is_final:
            self._new_pool, self.reason = None, reason
        return None
