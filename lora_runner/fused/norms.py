"""A model's RMSNorm modules, found by structure and by number, computed in one launch each way."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from lora_runner.fused.replaced import (
    MODEL_ERRORS,
    FusedForward,
    Replaced,
    is_equal,
    raise_unless_of_model,
    random_input,
)
from lora_runner.kernels.rms_norm import MAX_WIDTH, NormForm, rms_norm, rms_norm_backward

FORMS = tuple(NormForm(*choices) for choices in ((False, True), (True, False), (False, False)))
"""Those of transformers' models: Llama's and most others', Gemma's, OLMo 2's."""


def fuse_norms(model: nn.Module) -> Replaced:
    """Let the RMSNorm modules of `model` compute by a kernel, wherever it gives what their own code gives.

    On the meta device, where nothing has a value, structure alone decides.
    """
    count, left = 0, list[tuple[str, str]]()
    for name, module in model.named_modules():
        eps = _epsilon(module)
        if eps is None:
            continue
        found = _form_of(module, eps)
        if isinstance(found, str):
            left.append((name, found))
        else:
            module.forward = FusedNorm(module, eps, found)  # type: ignore[method-assign]
            count += 1
    return Replaced.of(count, left)


class FusedNorm(FusedForward):
    """The forward of a norm module."""

    def __init__(self, module: nn.Module, eps: float, form: NormForm) -> None:
        self._own: Callable[..., Tensor] = module.forward
        self._module, self._eps, self.form = module, eps, form

    def __call__(self, x: Tensor) -> Tensor:
        weight = _weight(self._module)
        if x.dtype != weight.dtype or x.device != weight.device:
            return self._own(x)
        out: Tensor = _NormFunction.apply(x, weight, self._eps, self.form)  # type: ignore[no-untyped-call]
        return out


class _NormFunction(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float, form: NormForm) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.eps, ctx.form = eps, form
        return rms_norm(x, weight, eps, form)

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        return rms_norm_backward(grad, x, weight, ctx.eps, ctx.form), None, None, None


def _epsilon(module: nn.Module) -> float | None:
    """What a module adds to a variance; None for one that is no norm."""
    if next(module.children(), None) is not None:
        return None
    given = (value for name, value in vars(module).items() if "eps" in name and isinstance(value, float))
    return next(given, None)


def _weight(module: nn.Module) -> Tensor:
    (weight,) = module.parameters(recurse=False)
    return weight


def _form_of(module: nn.Module, eps: float) -> NormForm | str:
    """The form in which the kernel computes what the module computes, or why there is none."""
    if isinstance(module, nn.LayerNorm):
        return "LayerNorm, which torch's own kernels compute row by row"
    if "forward" in vars(module):
        return "has a forward of its own"
    weights = list(module.parameters(recurse=False))
    if len(weights) != 1 or weights[0].dim() != 1:
        return "does not have one weight for each column"
    (weight,) = weights
    if weight.numel() > MAX_WIDTH:
        return f"rows are {weight.numel()} wide, a program holds {MAX_WIDTH}"
    if weight.device.type == "meta":
        return FORMS[0]
    try:
        candidates = {form: 0.0 for form in FORMS}
        for dtype in (torch.float32, weight.dtype):
            unequal = {form: _unequal(module, eps, form, dtype) for form in candidates}
            candidates = {form: share for form, share in unequal.items() if share is not None}
    except MODEL_ERRORS as error:
        raise_unless_of_model(error)
        return f"cannot be called on one tensor: {type(error).__name__}"
    if not candidates:
        return "computes something else than the kernel"
    # Where a form rounds elsewhere than the module, about every fourth element is another one.
    return min(candidates, key=candidates.__getitem__)


def _unequal(module: nn.Module, eps: float, form: NormForm, dtype: torch.dtype) -> float | None:
    """Share of elements that the kernel rounds otherwise than the module, with other weights, in `dtype`.

    None if it computes something else.
    """
    ((name, weight),) = module.named_parameters(recurse=False)
    drawn = random_input(tuple(weight.shape), dtype, weight.device)
    probe = copy.copy(module)
    probe._parameters = {name: nn.Parameter(drawn, requires_grad=False)}
    x = random_input((3, weight.numel()), dtype, weight.device)
    x[1] *= eps**0.5  # where eps counts
    with torch.no_grad():
        expected = probe(x)
    found = rms_norm(x, drawn, eps, form)
    if not isinstance(expected, Tensor) or not is_equal(found, expected):
        return None
    return float((found != expected).float().mean())
