"""What reference computations in float64 share, and the errors that rounding explains."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor


def rounding(dtype: torch.dtype, steps: int, terms: int = 4096) -> float:
    """The relative error of `steps` roundings to `dtype`, and of a sum of `terms` in float32.

    Each rounding changes an element by at most half of `eps`; the errors of a sum add up like the square root
    of its terms.
    """
    found: float = steps * torch.finfo(dtype).eps + 4 * math.sqrt(terms) * torch.finfo(torch.float32).eps
    return found


def with_gradients(
    function: Callable[..., Sequence[Tensor]], inputs: Sequence[Tensor], grads: Sequence[Tensor]
) -> tuple[Tensor, ...]:
    """The outputs of `function` and, for these gradients of theirs, the gradients of all inputs."""
    leaves = [x.detach().requires_grad_() for x in inputs]
    with torch.enable_grad():
        outputs = function(*leaves)
    found = torch.autograd.grad(outputs, leaves, grads)
    return (*(output.detach() for output in outputs), *found)
