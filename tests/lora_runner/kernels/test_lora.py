"""LoRA branches of all trials at once: right, and a trial's bits are its own."""

from __future__ import annotations

import random

import pytest
import torch
from torch import Tensor

from lora_runner.kernels.lora import shrink
from tests.lora_runner.kernels.drawn_adapters import (
    Layers,
    Pass,
    Trial,
    draw_layers,
    draw_trial,
    same_bits,
)
from tests.lora_runner.kernels.interpreter import DOT_DTYPES

FP32_STEP = 2.0**-23
"""Twice the rounding of a float32 addition; matrix instructions truncate instead, by at most this."""
SIBLINGS = [(80,), (48, 144), (144, 16, 32)]


@pytest.fixture(params=DOT_DTYPES, ids=str)
def dtype(request: pytest.FixtureRequest) -> torch.dtype:
    found: torch.dtype = request.param
    return found


def draw_pack(draw: random.Random, layers: Layers, dtype: torch.dtype) -> list[Trial]:
    """Mixed ranks, with and without dropout, in a drawn order."""
    rows = draw.sample([1, 7, 64, 65, 131], 5)
    ranks = draw.sample([0, 8, 16, 24, 64], 5)
    return [
        draw_trial(draw, layers, dtype, rank=rank, rows=num, drops=draw.random() < 0.5)
        for rank, num in zip(ranks, rows, strict=True)
    ]


def assert_close(found: Tensor, exact: Tensor, magnitudes: Tensor, terms: int) -> None:
    """Within a float32 sum of `terms` products of these magnitudes, rounded once to the dtype."""
    bound = exact.abs() * torch.finfo(found.dtype).eps / 2 + magnitudes * terms * FP32_STEP
    assert bool(((found.double() - exact).abs() <= bound).all())


def product(left: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
    """In float64, and the sum of the magnitudes of its terms."""
    return left.double() @ right.double(), left.double().abs() @ right.double().abs()


@pytest.mark.parametrize("out_features", SIBLINGS, ids=str)
def test_branches_are_those_of_float64_rounded(
    seed: int, dtype: torch.dtype, out_features: tuple[int, ...]
) -> None:
    """Each kernel against float64 on the very inputs that it read."""
    draw = random.Random(seed)
    layers = draw_layers(draw, 16 * draw.randrange(1, 9), out_features)
    trials = draw_pack(draw, layers, dtype)
    found = Pass(layers, trials, padding=draw.choice([0, 9]), gap=1)
    for trial, branches in zip(trials, found.branches, strict=True):
        dx, dx_magnitudes = trial.dx.double(), trial.dx.double().abs()
        for sibling, columns in enumerate(map(layers.columns, range(len(out_features)))):
            a, b = trial.matrices(layers, sibling)
            a, b = a.to(dtype), b.to(dtype)
            keep = trial.keep(layers, sibling)
            kept, dy = trial.x * keep, trial.dy[:, columns]
            s, ds = branches.s[sibling], branches.ds[sibling]

            exact, magnitudes = product(kept, a.t())
            assert_close(s, exact * trial.scale, magnitudes * trial.scale, layers.in_features + 1)
            exact, magnitudes = product(dy, b)
            assert_close(ds, exact * trial.scale, magnitudes * trial.scale, out_features[sibling] + 1)

            base = trial.out[:, columns].double()
            exact, magnitudes = product(s, b.t())
            assert_close(branches.out[:, columns], base + exact, base.abs() + magnitudes, trial.rank + 1)
            exact, magnitudes = product(ds, a)
            dx, dx_magnitudes = dx + exact * keep, dx_magnitudes + magnitudes * keep

            before = trial.matrices(layers, sibling, trial.gradients)
            after = trial.matrices(layers, sibling, branches.gradients)
            for matrix, old, (exact, magnitudes) in zip(
                after, before, (product(ds.t(), kept), product(dy.t(), s)), strict=True
            ):
                assert_close(matrix, old.double() + exact, old.double().abs() + magnitudes, len(trial.x) + 1)
        assert_close(branches.dx, dx, dx_magnitudes, (trial.rank + 1) * len(out_features))


@pytest.mark.parametrize(("one_chunk", "dtype"), list(zip([True, False], DOT_DTYPES, strict=True)))
def test_the_bits_of_a_trial_do_not_depend_on_what_else_is_in_the_pass(
    seed: int, dtype: torch.dtype, one_chunk: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not one_chunk:
        monkeypatch.setattr(shrink, "CHUNK", 64)
    draw = random.Random(seed)
    layers = draw_layers(draw, 144, (144, 16))
    kinds = ((24, 68, True), (8, 5, draw.random() < 0.5))
    trials = [
        draw_trial(draw, layers, dtype, rank=rank, rows=rows, drops=drops) for rank, rows, drops in kinds
    ]
    neighbours = [draw_trial(draw, layers, dtype, rank=each, rows=9, drops=True) for each in (16, 80)]
    for neighbour, value in zip(neighbours, (float("nan"), float("inf")), strict=True):
        for part in (neighbour.parameters, neighbour.gradients, neighbour.x, neighbour.dy, neighbour.out):
            part.fill_(value)
    base = draw_trial(draw, layers, dtype, rank=0, rows=5, drops=False)
    first, second = trials
    packs = [
        Pass(layers, [*neighbours, second, first, base], padding=30, rank_columns=96, gap=2),
        Pass(layers, [base, first, neighbours[0], second], spare_blocks=3, beside=16),
    ]
    for trial in trials:
        alone = Pass(layers, [trial]).branches[0]
        assert all(bool(part.isfinite().all()) for part in (*alone.s, *alone.ds, alone.out, alone.dx))
        for pack in packs:
            assert pack.of(trial).same_bits(alone), (trial.rank, pack.rank_columns)


def test_rows_without_an_adapter_and_memory_of_nobody_keep_their_bits(seed: int, dtype: torch.dtype) -> None:
    draw = random.Random(seed)
    layers = draw_layers(draw, 64, (48, 144))
    base = draw_trial(draw, layers, dtype, rank=0, rows=7, drops=False)
    for part in (base.out, base.dx):
        part[0], part[1] = -0.0, torch.inf
    trials = [draw_trial(draw, layers, dtype, rank=16, rows=10, drops=True) for _ in range(2)]
    found = Pass(layers, [trials[0], base, trials[1]], padding=20, gap=1)
    assert same_bits(found.branches[1].out, base.out)
    assert same_bits(found.branches[1].dx, base.dx)
    assert all(bool((part == 1).all()) for part in found.padded)
    owned = torch.zeros(len(found.gradients), dtype=torch.bool)
    for start, trial in zip(found.starts, found.trials, strict=True):
        owned[start : start + len(trial.parameters)] = True
    assert torch.equal(found.gradients.isnan().cpu(), ~owned)


def test_the_padding_of_a_rank_gets_no_gradient(seed: int, dtype: torch.dtype) -> None:
    draw = random.Random(seed)
    layers = draw_layers(draw, 64, (48, 144))
    trial = draw_trial(draw, layers, dtype, rank=24, rows=70, drops=True, lora_r=18)
    trial.gradients.zero_()
    (branches,) = Pass(layers, [trial]).branches
    for sibling in range(2):
        a, b = trial.matrices(layers, sibling, branches.gradients)
        assert bool((a[18:] == 0).all())
        assert bool((b[:, 18:] == 0).all())
        assert bool((a[:18] != 0).any())
        assert bool((b[:, :18] != 0).any())


def test_columns_in_more_than_one_chunk(seed: int) -> None:
    """At the width of a real chunk, with a sibling that has fewer."""
    draw = random.Random(seed)
    dtype, width = DOT_DTYPES[-1], 2 * shrink.CHUNK + 16
    layers = draw_layers(draw, width, (width, 16))
    trial = draw_trial(draw, layers, dtype, rank=8, rows=3, drops=True)
    (branches,) = Pass(layers, [trial]).branches
    for sibling, columns in enumerate(map(layers.columns, range(2))):
        a, b = (matrix.to(dtype) for matrix in trial.matrices(layers, sibling))
        exact, magnitudes = product(trial.x * trial.keep(layers, sibling), a.t())
        assert_close(
            branches.s[sibling], exact * trial.scale, magnitudes * trial.scale, layers.in_features + 1
        )
        exact, magnitudes = product(trial.dy[:, columns], b)
        assert_close(branches.ds[sibling], exact * trial.scale, magnitudes * trial.scale, len(b) + 1)


def test_columns_that_are_not_adjacent_are_refused() -> None:
    assert shrink.row_stride(torch.empty(3, 8)[:, 2:4]) == 8
    with pytest.raises(ValueError, match=r"columns must be adjacent, and are 3 elements apart"):
        shrink.row_stride(torch.empty(8, 3).t())
