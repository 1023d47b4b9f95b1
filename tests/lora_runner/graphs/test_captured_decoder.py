"""Captured passes give the bits of passes that are computed as usual, whatever came between."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from lora_runner.graphs import captured_decoder
from lora_runner.graphs.captured_decoder import CapturedDecoder
from lora_runner.graphs.graph import CudaGraphPool, GraphPool
from lora_runner.layout.pass_tables import BlockAdapter
from tests.lora_runner.devices import no_cuda
from tests.lora_runner.graphs.tape import TapePool
from tests.lora_runner.graphs.toy_decoder import SLOT, Contents, Inputs, Key, Toy, drawn

CPU = torch.device("cpu")


class Both:
    """A captured decoder beside one that captures nothing, on the same numbers."""

    def __init__(
        self,
        device: torch.device = CPU,
        compute: Callable[[Toy, Inputs], Tensor] = Toy.compute,
        new_pool: Callable[[Toy], GraphPool] | None = None,
    ) -> None:
        self.pools: list[TapePool] = []
        self.toys = Toy(device), Toy(device)

        def tape_pool() -> GraphPool:
            self.pools.append(TapePool(self.toys[0].state))
            return self.pools[-1]

        first, second = self.toys
        self.captured = CapturedDecoder[Key, Inputs](
            lambda inputs: compute(first, inputs),
            first.new_inputs,
            tape_pool if new_pool is None else lambda: new_pool(first),
        )
        self.plain = CapturedDecoder[Key, Inputs](
            lambda inputs: second.compute(inputs), second.new_inputs, None, reason="graphs: false"
        )

    def train(self, contents: Contents, *, backward: bool = True) -> bool:
        """A pass on both; whether hidden states and all gradients so far are the same bits."""
        hidden = self._hidden_states(contents, training=True)
        rows = [each[: contents.num_rows] for each in hidden]
        same = torch.equal(*(each.detach() for each in rows))
        if backward:
            for each in rows:
                # As the rows that predict something: taken out before the backward pass writes over them.
                part = each.index_select(0, torch.arange(0, contents.num_rows, 2, device=each.device))
                part.backward(part.detach().cos())
        return same and torch.equal(*(toy.gradients for toy in self.toys))

    @torch.no_grad()
    def evaluate(self, contents: Contents) -> bool:
        hidden = self._hidden_states(contents, training=False)
        assert not any(each.requires_grad for each in hidden)
        return torch.equal(*(each[: contents.num_rows] for each in hidden))

    def _hidden_states(self, contents: Contents, *, training: bool) -> list[Tensor]:
        key = contents.key(training=training)
        return [
            decoder.hidden_states(key, lambda inputs: inputs.write(contents)) for decoder in self.decoders
        ]

    @property
    def decoders(self) -> tuple[CapturedDecoder[Key, Inputs], ...]:
        return self.captured, self.plain

    @property
    def num_replays(self) -> int:
        return sum(pool.num_replays for pool in self.pools)


def random_numbers() -> np.random.Generator:
    seed = int(torch.randint(2**31, ()))
    print("seed", seed)
    return np.random.default_rng(seed)


DEVICES = ["cpu", pytest.param("cuda", marks=[pytest.mark.gpu, no_cuda])]


def both_on(device: str) -> Both:
    if device == "cpu":
        return Both()
    cuda = torch.device("cuda", torch.cuda.current_device())
    return Both(cuda, new_pool=lambda toy: CudaGraphPool(toy.device))


@pytest.mark.parametrize("device", DEVICES)
def test_drawn_passes_have_the_same_bits(device: str) -> None:
    rng, both = random_numbers(), both_on(device)
    for number in range(20):
        contents = drawn(rng, int(rng.integers(1, 5)), int(rng.choice([40, 120, 200])))
        if number % 5 == 4:
            assert both.evaluate(contents)
        # A pass without a backward pass, as after an error, leaves nothing behind.
        assert both.train(contents, backward=number % 7 != 3)
        if number % 4 == 0:  # an update; the windows of the others stay open
            for toy in both.toys:
                toy.parameters[:SLOT] += toy.gradients[:SLOT]
                toy.gradients[:SLOT] = 0
    assert both.captured.reason == ""
    assert both.captured.num_captured > 0
    if device == "cpu":
        assert both.num_replays > 5


def contents_of(*sizes: int, rank: int = 8) -> Contents:
    adapter = BlockAdapter(0, rank, 1.5, 0, None, 0)
    blocks = [
        (replace(adapter, start=i * SLOT), tuple(k % 50 for k in range(n))) for i, n in enumerate(sizes)
    ]
    return Contents(tuple(blocks))


def test_all_but_the_first_pass_of_a_kind_are_captured() -> None:
    both = Both()
    counts = []
    for contents in (contents_of(60, 30), contents_of(60, 31), contents_of(10, 5), contents_of(61, 32)):
        both.train(contents)
        counts.append((both.captured.num_captured, both.num_replays))  # forward and backward
    assert counts == [(0, 0), (1, 2), (2, 4), (2, 6)]
    for contents in (contents_of(60, 30), contents_of(60, 31)):
        both.evaluate(contents)
    assert (both.captured.num_captured, both.num_replays) == (3, 7)


def test_another_largest_rank_is_first_computed_as_usual_with_all_memory() -> None:
    both, wide = Both(), contents_of(10, rank=40)
    counts = []
    for contents in (contents_of(10), contents_of(11), wide, wide, contents_of(11)):
        assert both.train(contents)
        counts.append(both.captured.num_captured)
    assert counts == [0, 1, 0, 1, 2]


def test_the_memory_pool_begins_with_its_longest_training_pass() -> None:
    both = Both()
    for size in (10, 11, 70, 12, 71):
        assert both.train(contents_of(size))
    assert [len(pool.tapes) for pool in both.pools] == [0, 4]


def reads_a_value(toy: Toy, inputs: Inputs) -> Tensor:
    if float(inputs.tables.scales[0]) < 0:
        raise ValueError
    return toy.compute(inputs)


def has_a_shape_that_depends_on_values(toy: Toy, inputs: Inputs) -> Tensor:
    inputs.tables.row_blocks.nonzero()
    return toy.compute(inputs)


def selects_by_a_mask(toy: Toy, inputs: Inputs) -> Tensor:
    inputs.tables.row_blocks[inputs.tables.row_blocks > 0]
    return toy.compute(inputs)


def draws_random_numbers(toy: Toy, inputs: Inputs) -> Tensor:
    torch.rand(3)
    return toy.compute(inputs)


def makes_a_table(toy: Toy, inputs: Inputs) -> Tensor:
    torch.tensor([1, 2, 3])
    return toy.compute(inputs)


def copies_to_the_host(toy: Toy, inputs: Inputs) -> Tensor:
    inputs.tables.scales.tolist()
    return toy.compute(inputs)


@pytest.mark.parametrize(
    ("compute", "reason"),
    [
        (reads_a_value, "aten::_local_scalar_dense reads a value on the host"),
        (has_a_shape_that_depends_on_values, "aten::nonzero has a result whose shape follows from values"),
        (selects_by_a_mask, "aten::index.Tensor has a result whose shape follows from values"),
        (draws_random_numbers, "aten::rand draws random numbers"),
        (makes_a_table, "tensor makes a tensor from Python data"),
        (copies_to_the_host, "tolist reads on the host"),
    ],
)
def test_what_cannot_be_captured_is_computed_as_usual(compute: Any, reason: str) -> None:
    both = Both(compute=compute)
    assert all(both.train(contents_of(10, n)) for n in (5, 6, 7))
    assert both.captured.reason == f"a pass cannot be captured: {reason}"
    assert both.num_replays == 0


def test_a_number_of_python_that_differs_between_passes_shows() -> None:
    """The tape runs no Python again: what a pass has built in stays as it was."""

    def scaled(toy: Toy, inputs: Inputs) -> Tensor:
        return toy.compute(inputs) * (1 if inputs.num_rows == 15 else 2)

    both = Both(compute=scaled)
    assert [both.train(contents_of(10, n)) for n in (5, 6, 7)] == [True, False, False]


@pytest.mark.parametrize(
    ("error", "reason", "num_pools"),
    [
        (torch.OutOfMemoryError("no memory"), "out of memory while a pass was captured: no memory", 1),
        (RuntimeError("refused"), "a pass could not be captured: RuntimeError: refused", 3),
    ],
)
def test_a_capture_that_fails_costs_no_pass(error: Exception, reason: str, num_pools: int) -> None:
    def failing(toy: Toy, inputs: Inputs) -> Tensor:
        if torch.utils._python_dispatch._get_current_dispatch_mode() is not None:
            raise type(error)(*error.args)  # another one: a traceback keeps the memory of its frames
        return toy.compute(inputs)

    both = Both(compute=failing)
    assert all(both.train(contents_of(10, n)) for n in (5, 6, 7, 8, 9))
    assert both.captured.reason == reason
    assert [len(pool.tapes) for pool in both.pools] == [0] * num_pools


def test_a_pack_that_has_become_smaller_captures_again() -> None:
    both = Both()
    assert all(both.train(contents_of(10, n)) for n in (5, 6))
    assert both.captured.stop("memory ran out")
    assert both.train(contents_of(10, 7))
    assert (both.captured.num_captured, both.captured.reason) == (0, "memory ran out")
    both.captured.resume()
    assert all(both.train(contents_of(10, n)) for n in (5, 6))
    assert (both.captured.num_captured, both.captured.reason) == (1, "")


@pytest.mark.parametrize(("training", "goes_on"), [(True, False), (False, True)])
def test_a_capture_that_does_not_fit_beside_others_gives_them_up_first(training: bool, goes_on: bool) -> None:
    def failing_beside(toy: Toy, inputs: Inputs) -> Tensor:
        is_captured = torch.utils._python_dispatch._get_current_dispatch_mode() is not None
        if is_captured and both.captured.num_captured:
            raise torch.OutOfMemoryError("no memory")
        return toy.compute(inputs)

    both = Both(compute=failing_beside)
    compute = both.train if training else both.evaluate
    long, short = contents_of(200), contents_of(60)
    counts = []
    for contents in (long, long, short, short):
        assert compute(contents)
        counts.append(both.captured.num_captured)
    assert counts == [0, 1, 0, 1]
    assert all(map(compute, (long, short, long, short)))
    assert (both.captured.reason == "") == goes_on


def test_one_failed_capture_is_tried_again() -> None:
    def failing_once(toy: Toy, inputs: Inputs) -> Tensor:
        if torch.utils._python_dispatch._get_current_dispatch_mode() is not None and not failed:
            failed.append(True)
            raise RuntimeError("a kernel must be compiled first")
        return toy.compute(inputs)

    failed: list[bool] = []
    both = Both(compute=failing_once)
    assert all(both.train(contents_of(10, n)) for n in (5, 6, 7))
    assert (both.captured.num_captured, both.captured.reason) == (1, "")


def test_what_a_captured_pass_has_built_in_drops_it_when_it_changes() -> None:
    both = Both()
    contents = contents_of(10, 5)
    key = contents.key(training=False)
    counts = []
    with torch.no_grad():
        for built_in in (1, 1, 1, 2, 2):  # what was made by the first pass still stands at the fourth
            both.captured.hidden_states(key, lambda inputs: inputs.write(contents), built_in)
            counts.append(both.captured.num_captured)
    assert counts == [0, 1, 1, 1, 1]
    assert [len(pool.tapes) for pool in both.pools] == [0, 1]


def test_buckets_beyond_the_limit_wait_until_one_is_stale(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(captured_decoder, "MAX_BUCKETS", 2)
    monkeypatch.setattr(captured_decoder, "STALE_PASSES", 8)
    both = Both()
    three = [contents_of(n) for n in (60, 120, 180)]
    for contents in (three[0], *three, *three):
        assert both.evaluate(contents)
    assert set(both.captured._buckets) == {contents.key(training=False) for contents in three[:2]}
    for contents in (three[1], three[2]) * 5:
        assert both.evaluate(contents)
    assert set(both.captured._buckets) == {contents.key(training=False) for contents in three[1:]}


def test_a_pass_that_does_not_recur_is_never_captured() -> None:
    both = Both()
    contents = contents_of(10, 5)
    key = replace(contents.key(training=False), recurs=False)
    with torch.no_grad():
        for _ in range(3):
            both.captured.hidden_states(key, lambda inputs: inputs.write(contents))
    assert both.captured.num_captured == 0


def test_passes_whose_cache_is_freed_are_dropped_alone() -> None:
    both = Both()
    for size in (60, 120, 120, 180):
        both.evaluate(contents_of(size))
    both.captured.drop_those(lambda key: key.num_rows == 128)
    assert [key.num_rows for key in both.captured._buckets] == [192]
    both.captured.drop_those(lambda key: True)
    assert both.evaluate(contents_of(120))  # in a new pool
    assert [len(pool.tapes) for pool in both.pools] == [0, 1]
