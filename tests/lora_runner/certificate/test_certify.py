"""Checks of this machine: what is invariant passes, and what is broken on purpose does not."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from lora_runner.certificate.certificate import KINDS, Certificate
from lora_runner.certificate.certify import certify
from lora_runner.certificate.checks.check_ways import check_way
from lora_runner.certificate.checks.invariance import cut, relative_error
from lora_runner.certificate.device_facts import DeviceFacts
from lora_runner.certificate.ways import products
from lora_runner.certificate.ways.registry import WAYS, Way, ways_for
from lora_runner.layers.block_matmul import Blocks, matmul_shared
from tests.lora_runner.certificate.made import CPU, TINY, hopper

F32, BF16 = torch.float32, torch.bfloat16


@pytest.fixture(scope="module")
def made() -> Certificate:
    """A whole certificate of this machine's CPU; its seed is printed where a test fails."""
    found = certify(CPU, TINY, F32)
    print(f"seed {found.seed}")
    return found


def test_the_ways_of_a_cpu_are_invariant(made: Certificate) -> None:
    assert made.failures() == []
    assert made.is_good
    assert {choice.kind for choice in made.choices} == set(KINDS)
    assert all(check.comparisons > 5 and check.speed for check in made.checks)
    assert all(check.error is not None and check.error < 1e-5 for check in made.checks)


def test_each_certificate_draws_inputs_of_its_own(made: Certificate) -> None:
    assert certify(CPU, TINY, F32).seed != made.seed


def only(way: str, kind: str = "products") -> Way:
    return next(one for one in WAYS if (one.kind, one.name) == (kind, way))


def first_difference(way: Way, seed: int = 1) -> str | None:
    checks = check_way(way, CPU, torch.float32, TINY, seed, lambda: None)
    return next((check.difference for check in checks if check.difference), None)


def depends_on_height(x: Tensor, weight: Tensor, blocks: Blocks) -> Tensor:
    """Another order of the sum from 16 rows on, as a library may choose it."""
    if x.shape[0] <= 16:
        return matmul_shared(x, weight, blocks)
    half = x.shape[1] // 2
    return matmul_shared(x[:, :half].contiguous(), weight[:half], blocks) + matmul_shared(
        x[:, half:].contiguous(), weight[half:], blocks
    )


def leaks_nan(x: Tensor, weight: Tensor, blocks: Blocks) -> Tensor:
    """A neighbour that is left out by a factor of zero."""
    return matmul_shared(x, weight, blocks) + 0.0 * x.sum()


def wrong_by_half_a_percent(x: Tensor, weight: Tensor, blocks: Blocks) -> Tensor:
    return matmul_shared(x, weight, blocks) * 1.005


def raises(x: Tensor, weight: Tensor, blocks: Blocks) -> Tensor:
    raise RuntimeError("no kernel for this shape")


CALLS = itertools.count()


def never_twice(x: Tensor, weight: Tensor, blocks: Blocks) -> Tensor:
    """As with atomics: a sum in the order in which programs end."""
    return matmul_shared(x, weight, blocks) * (1 + 1e-6 * (next(CALLS) % 2))


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        (depends_on_height, "elements differ, the first at"),
        (leaks_nan, "beside NaN neighbours: "),
        (wrong_by_half_a_percent, "rows alone differ from float64 by 5.0e-03, more than"),
        (raises, "raised RuntimeError: no kernel for this shape"),
        (never_twice, "rows alone, computed twice: "),
    ],
)
def test_a_product_that_is_broken_on_purpose_is_not_certified(
    monkeypatch: pytest.MonkeyPatch, broken: Callable[..., Tensor], said: str
) -> None:
    monkeypatch.setattr(products, "matmul_shared", broken)
    found = first_difference(only("grouped"))
    assert found is not None
    assert said in found


def test_a_broken_way_makes_the_certificate_fail_with_its_first_difference(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(products, "matmul_shared", depends_on_height)
    monkeypatch.setattr("lora_runner.certificate.certify.ways_for", lambda *_: [only("grouped")])
    made = certify(CPU, TINY, F32, seed=5)
    assert not made.is_good
    assert made.way_of("products") is None
    (said,) = made.failures()
    assert said.startswith("frozen products by grouped: not invariant on this machine, forward ")
    assert " rows of " in said
    # The seed repeats it.
    again = certify(CPU, TINY, F32, seed=5)
    assert [check.difference for check in again.checks] == [check.difference for check in made.checks]


def test_attention_that_lets_a_sequence_see_its_neighbour_is_not_certified(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from lora_runner.certificate.ways import attention

    class OneSequence:
        """Buckets in which all tokens of a pass are one sequence."""

        @staticmethod
        def of(lengths: Sequence[Sequence[int]], **arguments: Any) -> Any:
            return buckets_of([[sum(map(sum, lengths))]], **arguments)

    buckets_of = attention.LengthBuckets.of
    monkeypatch.setattr(attention, "LengthBuckets", OneSequence)
    assert first_difference(only("sdpa", "attention")) is not None


def test_an_update_clipped_by_a_norm_of_all_trials_is_not_certified(monkeypatch: pytest.MonkeyPatch) -> None:
    from lora_runner.certificate.ways import update

    def common(buffers: Any, groups: Any, num_trials: int) -> Tensor:
        return buffers.gradients.square().sum().expand(num_trials).clone()

    monkeypatch.setattr(update, "squared_norms", common)
    assert first_difference(only("fused", "update")) is not None


def test_ways_of_the_fused_path_are_for_capability_9_on() -> None:
    names = {(way.kind, way.name) for way in ways_for(DeviceFacts.of(CPU), BF16)}
    assert ("products", "triton") not in names
    assert ("products", "cublas") not in names
    assert ("products", "triton") in {(way.kind, way.name) for way in ways_for(hopper(), BF16)}
    older = [way.name for way in ways_for(_with_capability(8), BF16)]
    assert "triton" not in older
    assert "cublas :0:0" in older
    assert "efficient" in older
    little_memory = replace(hopper(), capability=(12, 0), shared_bytes=99 * 1024)
    for facts, dtype in ((little_memory, BF16), (hopper(), F32)):
        assert "triton" not in {way.name for way in ways_for(facts, dtype)}


def _with_capability(major: int) -> DeviceFacts:
    return replace(hopper(), capability=(major, 0))


def test_cut_keeps_all_rows_and_an_error_that_is_nan_stays() -> None:
    for rows in range(12):
        parts = cut(rows, random.Random(rows))
        assert sum(parts) == rows
        assert all(parts)
    exact = torch.ones(3, dtype=torch.float64)
    assert relative_error([torch.full((3,), torch.nan), torch.ones(3)], [exact, exact]) != 0
    assert not relative_error([torch.full((3,), torch.nan)], [exact]) <= 1.0
