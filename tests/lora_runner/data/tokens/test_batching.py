"""Micro-batches by index, epochs as permutations."""

from __future__ import annotations

import math
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lora_runner.data import IGNORED, BatchPlan, TokenizedExample, TokenizedSet, steps_for_epochs
from lora_runner.errors import DataError


def numbered(size: int) -> TokenizedSet:
    examples = (TokenizedExample(input_ids=[n, n], labels=[IGNORED, n]) for n in range(size))
    return TokenizedSet.of(examples, source="numbers")


def plan(size: int, batch_size: int, seed: int = 0) -> BatchPlan:
    return BatchPlan(train=numbered(size), batch_size=batch_size, seed=seed)


def stream(of: BatchPlan, batches: int) -> list[int]:
    return [example.input_ids[0] for index in range(batches) for example in of.examples_at(index)]


@given(size=st.integers(1, 40), batch_size=st.integers(1, 50), seed=st.integers(0, 2**40))
def test_every_epoch_has_every_example_once(size: int, batch_size: int, seed: int) -> None:
    found = plan(size, batch_size, seed)
    per_epoch = math.ceil(size / batch_size)
    seen = stream(found, per_epoch * 3)
    assert len(seen) == per_epoch * 3 * batch_size
    for start in range(0, len(seen) - size + 1, size):
        assert sorted(seen[start : start + size]) == list(range(size))
    counts = Counter(seen)
    assert max(counts.values()) - min(counts[n] for n in range(size)) <= 1


@given(
    size=st.integers(1, 40), batch_size=st.integers(1, 9), index=st.integers(0, 10**6), seed=st.integers(0, 5)
)
def test_a_micro_batch_needs_no_history(size: int, batch_size: int, index: int, seed: int) -> None:
    fresh, used = plan(size, batch_size, seed), plan(size, batch_size, seed)
    stream(used, 3)
    assert fresh.examples_at(index) == used.examples_at(index)
    singles = plan(size, 1, seed)
    parts = [singles.examples_at(index * batch_size + offset)[0] for offset in range(batch_size)]
    assert list(fresh.examples_at(index)) == parts


def test_epochs_and_seeds_differ() -> None:
    found = plan(50, 50)
    epochs = [stream(plan(50, 50, seed), 2) for seed in (0, 1)]
    assert len({tuple(part) for seen in epochs for part in (seen[:50], seen[50:])}) == 4
    assert stream(found, 1) != list(range(50))


def test_the_order_is_the_same_in_every_process() -> None:
    # Written down: a resumed trial must get the same batches on another machine or version.
    assert plan(10, 10, seed=7).indices_at(0) == (2, 3, 8, 6, 4, 0, 1, 7, 5, 9)
    assert plan(10, 10, seed=7).indices_at(1) == (1, 4, 7, 8, 2, 5, 0, 3, 9, 6)


def test_bad_plans() -> None:
    with pytest.raises(DataError, match="batch_size must be at least 1, got 0"):
        plan(3, 0)
    with pytest.raises(DataError, match="numbers: a batch plan needs at least one training example"):
        plan(0, 2)
    with pytest.raises(ValueError, match="must not be negative, got -1"):
        plan(3, 2).examples_at(-1)


@pytest.mark.parametrize(
    ("num_examples", "batch_size", "accumulation", "epochs", "steps"),
    [
        (100, 10, 1, 1, 10),
        (101, 10, 1, 1, 11),
        (100, 4, 4, 3, 19),
        (1000, 10, 1, 0.1, 10),
        (3, 8, 4, 0.01, 1),
    ],
)
def test_steps(num_examples: int, batch_size: int, accumulation: int, epochs: float, steps: int) -> None:
    assert steps_for_epochs(num_examples, batch_size, accumulation, epochs) == steps


def test_steps_of_nothing() -> None:
    for arguments in (
        (0, 1, 1, 1.0),
        (1, 0, 1, 1.0),
        (1, 1, 0, 1.0),
        (1, 1, 1, 0.0),
        (1, 1, 1, float("nan")),
    ):
        with pytest.raises(ValueError, match="must be positive and finite"):
            steps_for_epochs(*arguments)
