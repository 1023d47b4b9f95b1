"""Clipping and AdamW for all trials of a pack at once, in place on the flat buffers of one device.

On CUDA a whole pack takes three launches of Triton kernels (`adamw_kernels.py`), however many trials and
matrices it has; elsewhere torch's fused AdamW runs once per segment. Norms and updates are two functions,
because a base can be spread over several devices and a trial's norm then sums over all of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor

from lora_runner.optim.flat_buffers import BLOCK, FlatBuffers
from lora_runner.optim.group_step import CLIP_EPSILON, GroupStep


@torch.no_grad()
def squared_norms(buffers: FlatBuffers, groups: Sequence[GroupStep], num_trials: int) -> Tensor:
    """Sum of squares of each trial's gradient on this device: (num_trials,) fp32; 0 without a group.

    A trial's bits depend only on its own gradient and the order of its groups. The host does not wait for the
    device. ValueError: segments that overlap or end outside the buffers, a trial number outside
    0..num_trials-1.
    """
    _check(buffers, groups, num_trials)
    if buffers.gradients.is_cuda:
        from lora_runner.optim import adamw_kernels as kernels

        return kernels.squared_norms(buffers, groups, num_trials)
    sums = [torch.zeros((), dtype=torch.float64, device=buffers.gradients.device) for _ in range(num_trials)]
    for group in groups:
        # Block by block: torch's CPU norm sums in fp32 and is off by 0.2% over 33 million elements; this is
        # exact and as fast (measured on torch 2.13).
        blocks = buffers.gradients[group.start : group.stop].view(-1, BLOCK)
        norms = torch.linalg.vector_norm(blocks, dim=1).double()
        sums[group.trial] = sums[group.trial] + norms.square().sum()
    return torch.stack(sums).float()


@torch.no_grad()
def clip_and_step(buffers: FlatBuffers, groups: Sequence[GroupStep], norms: Tensor) -> None:
    """Clip each trial's gradient by its norm and apply AdamW to its groups, in place.

    norms: (num_trials,) fp32, each trial's norm over all devices. Gradients are scaled by min(1,
    max_grad_norm / (norm + 1e-6)), as in torch.nn.utils.clip_grad_norm_; the update is that of
    torch.optim.AdamW(fused=True): decoupled decay, bias corrections in double precision. Elements outside the
    groups do not change. Whether the gradient buffer holds clipped gradients afterwards is undefined. The
    host does not wait for the device. Errors as in `squared_norms`.
    """
    _check(buffers, groups, norms.numel())
    if not groups:
        return
    norms = norms.to(buffers.parameters.device, torch.float32, non_blocking=True)
    if buffers.parameters.is_cuda:
        from lora_runner.optim import adamw_kernels as kernels

        kernels.clip_and_step(buffers, groups, norms)
        return
    for group in groups:
        here = slice(group.start, group.stop)
        gradients = buffers.gradients[here]
        clip(gradients, group, norms[group.trial])
        torch._fused_adamw_(
            [buffers.parameters[here]],
            [gradients],
            [buffers.exp_avg[here]],
            [buffers.exp_avg_sq[here]],
            [],
            [torch.full((), float(group.step), device=gradients.device)],
            lr=group.learning_rate,
            beta1=group.beta1,
            beta2=group.beta2,
            weight_decay=group.weight_decay,
            eps=group.epsilon,
            amsgrad=False,
            maximize=False,
        )


def clip(gradients: Tensor, group: GroupStep, norm: Tensor) -> None:
    """Scale a group's gradient in place by min(1, max_grad_norm / (norm + 1e-6)); norm: () on its device."""
    if group.max_grad_norm > 0:
        gradients.mul_(torch.clamp(group.max_grad_norm / (norm + CLIP_EPSILON), max=1.0))


def _check(buffers: FlatBuffers, groups: Sequence[GroupStep], num_trials: int) -> None:
    ordered = sorted(groups, key=lambda group: group.start)
    for left, right in pairwise(ordered):
        if left.stop > right.start:
            segments = f"{left.start} to {left.stop} and {right.start} to {right.stop}"
            raise ValueError(f"segments must not overlap, got {segments}")
    if ordered and ordered[-1].stop > (size := buffers.parameters.numel()):
        raise ValueError(f"segments end inside the buffers of {size} elements, got {ordered[-1].stop}")
    if unknown := [group.trial for group in groups if not 0 <= group.trial < num_trials]:
        raise ValueError(f"trials are numbered 0 to {num_trials - 1}, got {unknown[0]}")
