"""Which examples are in a micro-batch, computed from its index alone."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from lora_runner.data.tokens.tokenize import TokenizedExample, TokenizedSet
from lora_runner.errors import DataError


@dataclass(frozen=True, kw_only=True)
class BatchPlan:
    """The endless stream of training examples of one trial, cut into micro-batches.

    Each epoch is a new permutation of the set, drawn from (seed, epoch). A micro-batch that an epoch cannot
    fill continues with the first examples of the next, so every micro-batch has `batch_size` examples and
    every example is seen equally often. There is no state: a trial that resumes at micro-batch i asks for i.
    """

    train: TokenizedSet
    batch_size: int
    seed: int

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise DataError(f"batch_size must be at least 1, got {self.batch_size!r}")
        if not self.train.examples:
            raise DataError("a batch plan needs at least one training example", path=self.train.source)

    def examples_at(self, micro_batch_index: int) -> tuple[TokenizedExample, ...]:
        """Return the `batch_size` examples of one micro-batch, counted from 0 since the start of training."""
        return tuple(self.train.examples[index] for index in self.indices_at(micro_batch_index))

    def indices_at(self, micro_batch_index: int) -> tuple[int, ...]:
        """Return the indices in `train` of the same examples."""
        if micro_batch_index < 0:
            raise ValueError(f"micro_batch_index must not be negative, got {micro_batch_index!r}")
        first = micro_batch_index * self.batch_size
        indices = (divmod(position, len(self.train)) for position in range(first, first + self.batch_size))
        return tuple(int(_permutation(self.seed, epoch, len(self.train))[index]) for epoch, index in indices)


def steps_for_epochs(num_examples: int, batch_size: int, accumulation: int, epochs: float) -> int:
    """Return the number of optimizer steps in which a BatchPlan covers its examples `epochs` times."""
    for name, value in (
        ("num_examples", num_examples),
        ("batch_size", batch_size),
        ("accumulation", accumulation),
        ("epochs", epochs),
    ):
        if not value > 0 or not math.isfinite(value):
            raise ValueError(f"{name} must be positive and finite, got {value!r}")
    # As text: 0.1 means a tenth, not the binary number just above it, which would cost one more step.
    return math.ceil(Fraction(str(epochs)) * num_examples / (batch_size * accumulation))


@lru_cache(maxsize=64)
def _permutation(seed: int, epoch: int, size: int) -> npt.NDArray[np.intp]:
    """Return the order of one epoch, shape (size,).

    Sorted by raw Philox words: NumPy guarantees those across versions and platforms, unlike
    `Generator.permutation`.
    """
    key = hashlib.sha256(f"{seed}:{epoch}".encode()).digest()[:16]
    words = np.random.Philox(key=int.from_bytes(key, "little")).random_raw(size)
    return np.argsort(words, kind="stable")
