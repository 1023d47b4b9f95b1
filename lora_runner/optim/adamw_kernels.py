"""The update in Triton: sums of squares per trial, then one AdamW launch for a whole pack.

A launch has one program per block of BLOCK elements. A program also reads:

block_rows        (num_blocks,) int32   row of the group a block belongs to; a trial's blocks are adjacent
row_offsets       (num_rows,) int32     program number + offset = block number in the buffers
row_trials        (num_rows,) int32
trial_bounds      (num_trials + 1,) int32   where a trial's blocks start in the launch
hyperparameters   (num_rows, 8) fp32    see `_hyperparameters`

All but the last depend only on the segments and stay on the device between updates.
"""

# Triton is untyped; mypy cannot check kernels.
# mypy: disable-error-code="import-untyped, untyped-decorator, no-untyped-def"

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from lora_runner.layout.device_copies import to_device
from lora_runner.optim.flat_buffers import BLOCK, FlatBuffers
from lora_runner.optim.group_step import CLIP_EPSILON, GroupStep

OPTIONS: dict[str, Any] = {"num_warps": 4, "enable_fp_fusion": False}
"""For every launch. Without fusion, fma is used only where a kernel says so, whatever the default of the
Triton version, so a trial's numbers do not change with it. 4 warps give each thread two vectors of 4 elements
per buffer."""
SUM_CHUNK = 1024
"""Partial sums that the second stage adds at a time, lane by lane."""
NUM_HYPERPARAMETERS = 8


@triton.jit
def block_squares_kernel(gradients, block_rows, row_offsets, partials, BLOCK: tl.constexpr):
    """partials[i] = sum of squares of the launch's block i."""
    program = tl.program_id(0)
    offset = tl.load(row_offsets + tl.load(block_rows + program))
    # 64 bits: a pack that trains embeddings holds more than 2^31 elements.
    first = (program + offset).to(tl.int64) * BLOCK
    gradient = tl.load(gradients + first + tl.arange(0, BLOCK))
    tl.store(partials + program, tl.sum(gradient * gradient))


@triton.jit
def trial_squares_kernel(partials, trial_bounds, squares, CHUNK: tl.constexpr):
    """squares[t] = sum of trial t's partials, in an order that depends on their number alone."""
    trial = tl.program_id(0)
    first = tl.load(trial_bounds + trial)
    stop = tl.load(trial_bounds + trial + 1)
    total = tl.zeros((CHUNK,), tl.float64)
    # Not a range: the interpreter of Triton 3.6 has none over loaded bounds.
    while first < stop:
        offsets = first + tl.arange(0, CHUNK)
        total += tl.load(partials + offsets, mask=offsets < stop, other=0.0).to(tl.float64)
        first += CHUNK
    tl.store(squares + trial, tl.sum(total).to(tl.float32))


@triton.jit
def adamw_kernel(
    parameters,
    gradients,
    exp_avgs,
    exp_avg_sqs,
    norms,
    block_rows,
    row_offsets,
    row_trials,
    hyperparameters,
    CLIP_EPSILON: tl.constexpr,
    NUM_HYPERPARAMETERS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Clip and update one block, with the operations of torch's fused CUDA kernel in their order.

    That is `adam_math` of ATen/native/cuda/fused_adam_utils.cuh (torch 2.13): each fma of it, and the product
    that nvcc contracts (decay), is an fma here; divisions and the root are correctly rounded, as nvcc's are.
    """
    program = tl.program_id(0)
    row = tl.load(block_rows + program)
    values = hyperparameters + row * NUM_HYPERPARAMETERS
    learning_rate = tl.load(values)
    beta1 = tl.load(values + 1)
    beta2 = tl.load(values + 2)
    epsilon = tl.load(values + 3)
    weight_decay = tl.load(values + 4)
    bias_correction1 = tl.load(values + 5)
    sqrt_bias_correction2 = tl.load(values + 6)
    max_grad_norm = tl.load(values + 7)
    norm = tl.load(norms + tl.load(row_trials + row))

    elements = (program + tl.load(row_offsets + row)).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    parameter = tl.load(parameters + elements)
    gradient = tl.load(gradients + elements)
    exp_avg = tl.load(exp_avgs + elements)
    exp_avg_sq = tl.load(exp_avg_sqs + elements)

    scale = tl.div_rn(max_grad_norm, norm + CLIP_EPSILON)
    # Not tl.minimum, which drops a NaN: like torch's clamp this keeps it, and the trial counts as diverged.
    scale = tl.where(scale > 1.0, 1.0, scale)
    gradient = gradient * tl.where(max_grad_norm > 0.0, scale, 1.0)

    parameter = tl.fma(-(learning_rate * weight_decay), parameter, parameter)
    exp_avg = tl.fma(beta1, exp_avg, tl.fma(-beta1, gradient, gradient))
    square = gradient * gradient
    exp_avg_sq = tl.fma(beta2, exp_avg_sq, tl.fma(-beta2, square, square))
    denominator = tl.div_rn(tl.sqrt_rn(exp_avg_sq), sqrt_bias_correction2) + epsilon
    step_size = tl.div_rn(learning_rate, bias_correction1)
    parameter = parameter - tl.div_rn(step_size * exp_avg, denominator)

    tl.store(parameters + elements, parameter)
    tl.store(exp_avgs + elements, exp_avg)
    tl.store(exp_avg_sqs + elements, exp_avg_sq)


@dataclass(frozen=True)
class LaunchTables:
    """Where the blocks of a launch are; tensors are on the device."""

    rows: tuple[int, ...]
    """Index of each row's group in the caller's list."""
    num_blocks: int
    block_rows: Tensor
    row_offsets: Tensor
    row_trials: Tensor
    trial_bounds: Tensor


def squared_norms(buffers: FlatBuffers, groups: Sequence[GroupStep], num_trials: int) -> Tensor:
    """See `adamw.squared_norms`, which checks the arguments."""
    gradients = buffers.gradients
    tables = _tables_of(groups, num_trials, gradients.device)
    squares = torch.empty(num_trials, device=gradients.device)
    partials = torch.empty(tables.num_blocks, device=gradients.device)
    with torch.cuda.device_of(gradients):
        if groups:
            block_squares_kernel[(tables.num_blocks,)](
                gradients, tables.block_rows, tables.row_offsets, partials, BLOCK=BLOCK, **OPTIONS
            )
        trial_squares_kernel[(num_trials,)](
            partials, tables.trial_bounds, squares, CHUNK=SUM_CHUNK, **OPTIONS
        )
    return squares


def clip_and_step(buffers: FlatBuffers, groups: Sequence[GroupStep], norms: Tensor) -> None:
    """See `adamw.clip_and_step`, which checks the arguments; at least one group."""
    device = buffers.parameters.device
    tables = _tables_of(groups, norms.numel(), device)
    hyperparameters = _on_device(
        [_hyperparameters(groups[index]) for index in tables.rows], torch.float32, device
    )
    with torch.cuda.device_of(buffers.parameters):
        adamw_kernel[(tables.num_blocks,)](
            buffers.parameters,
            buffers.gradients,
            buffers.exp_avg,
            buffers.exp_avg_sq,
            norms,
            tables.block_rows,
            tables.row_offsets,
            tables.row_trials,
            hyperparameters,
            CLIP_EPSILON=CLIP_EPSILON,
            NUM_HYPERPARAMETERS=NUM_HYPERPARAMETERS,
            BLOCK=BLOCK,
            **OPTIONS,
        )


def _hyperparameters(group: GroupStep) -> tuple[float, ...]:
    """A row of the table, in the order that `adamw_kernel` reads."""
    betas = (group.beta1, group.beta2)
    rest = (*group.bias_corrections, group.max_grad_norm)
    return (group.learning_rate, *betas, group.epsilon, group.weight_decay, *rest)


def _tables_of(groups: Sequence[GroupStep], num_trials: int, device: torch.device) -> LaunchTables:
    segments = tuple((group.trial, group.start // BLOCK, group.stop // BLOCK) for group in groups)
    return _tables(segments, num_trials, device)


# Seats with different accumulation windows update in changing sets; 4 bytes per block and set.
@lru_cache(maxsize=16)
def _tables(
    segments: tuple[tuple[int, int, int], ...], num_trials: int, device: torch.device
) -> LaunchTables:
    """Tables for groups given as (trial, first block, last block + 1)."""
    # A stable sort: a trial's groups keep the caller's order, in which its squares are summed.
    rows = sorted(range(len(segments)), key=lambda index: segments[index][0])
    trials = [segments[row][0] for row in rows]
    counts = [segments[row][2] - segments[row][1] for row in rows]
    firsts = [0, *accumulate(counts)]
    offsets = [segments[row][1] - first for row, first in zip(rows, firsts, strict=False)]
    num_blocks = firsts.pop()
    per_trial = [0] * num_trials
    for trial, count in zip(trials, counts, strict=True):
        per_trial[trial] += count
    block_rows = torch.repeat_interleave(torch.arange(len(rows)), torch.tensor(counts, dtype=torch.int64))
    return LaunchTables(
        rows=tuple(rows),
        num_blocks=num_blocks,
        block_rows=_on_device(block_rows, torch.int32, device),
        row_offsets=_on_device(offsets, torch.int32, device),
        row_trials=_on_device(trials, torch.int32, device),
        trial_bounds=_on_device([0, *accumulate(per_trial)], torch.int32, device),
    )


def _on_device(values: Tensor | Sequence[Any], dtype: torch.dtype, device: torch.device) -> Tensor:
    return to_device(torch.as_tensor(values, dtype=dtype), device)
