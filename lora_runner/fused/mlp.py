"""A model's gated MLPs, found by structure and by number: act(gate) * up in one launch each way."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Mapping
from itertools import islice
from typing import Any, NamedTuple

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
from lora_runner.kernels.gated_activation import (
    ACTIVATIONS,
    Activation,
    gated_activation,
    gated_activation_backward,
)
from lora_runner.layers.linear import PackedLinear

ROWS = 3
"""On which a module's code is tried."""
SPREAD = 4.0
"""Of the numbers that an activation is tried on: wide enough that clipping would show."""


def fuse_mlps(model: nn.Module, dtype: torch.dtype) -> Replaced:
    """Let the gated MLPs of `model` compute by a kernel, wherever it gives what their own code gives.

    `dtype` is that of the activations. On the meta device, where nothing has a value, structure alone
    decides.
    """
    count, left = 0, list[tuple[str, str]]()
    for name, module in model.named_modules():
        linears = _linears(module)
        if not linears:
            continue
        found = _fused(module, linears, dtype)
        if isinstance(found, str):
            left.append((name, found))
        else:
            module.forward = found  # type: ignore[method-assign]
            count += 1
    return Replaced.of(count, left)


class FusedMlp(FusedForward):
    """The forward of an MLP with linear layers gate, up and down, or one layer for gate and up together."""

    def __init__(self, first: tuple[PackedLinear, ...], down: PackedLinear, kind: Activation) -> None:
        """`first`: gate and up, or the layer whose outputs they are, side by side."""
        self._first, self._down, self._kind = first, down, kind

    def __call__(self, x: Tensor) -> Tensor:
        # Of one and the same tensor, so that siblings are computed together.
        given = [linear(x) for linear in self._first]
        product: Tensor = _GatedFunction.apply(self._kind, *given)  # type: ignore[no-untyped-call]
        out: Tensor = self._down(product)
        return out


class _GatedFunction(torch.autograd.Function):
    """Gate and up (..., I) each, or side by side (..., 2 I) -> (..., I)."""

    @staticmethod
    def forward(ctx: Any, kind: Activation, *given: Tensor) -> Tensor:
        ctx.kind = kind
        ctx.save_for_backward(*given)
        gate, up = given if len(given) == 2 else given[0].chunk(2, dim=-1)
        return gated_activation(gate, up, kind)

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        given = ctx.saved_tensors
        gate, up = given if len(given) == 2 else given[0].chunk(2, dim=-1)
        joint = gated_activation_backward(grad, gate, up, ctx.kind)
        return None, *(joint.chunk(2, dim=-1) if len(given) == 2 else (joint,))


# --- recognition --------------------------------------------------------------------------------------


def _linears(module: nn.Module) -> dict[str, PackedLinear]:
    """The two or three linear layers of a module that might be a gated MLP; none for any other."""
    linears = {name: child for name, child in module.named_children() if isinstance(child, PackedLinear)}
    others = [child for child in module.children() if not isinstance(child, PackedLinear)]
    has_weights = any(True for child in others for _ in child.parameters()) or any(
        True for _ in module.parameters(recurse=False)
    )
    return {} if has_weights or len(linears) not in (2, 3) or not _takes_one_tensor(module) else linears


def _takes_one_tensor(module: nn.Module) -> bool:
    parameters = inspect.signature(module.forward).parameters.values()
    required = [
        p
        for p in parameters
        if p.default is p.empty and p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)
    ]
    return len(required) == 1


class _Recorded(nn.Module):
    """Takes a linear layer's place: keeps its input and returns what it was given."""

    def __init__(self, output: Tensor) -> None:
        super().__init__()
        self.output = output
        self.inputs = list[Tensor]()

    def forward(self, x: Tensor) -> Tensor:
        self.inputs.append(x)
        return self.output


class _Trial(NamedTuple):
    """What a module did with random outputs of its linear layers."""

    first: tuple[str, ...]
    """The layers that were given its input, in the order of their calls."""
    outputs: tuple[Tensor, ...]
    """What they returned."""
    down: str
    """The layer whose output it returned."""
    product: Tensor
    """What that layer was given."""


def _fused(module: nn.Module, linears: Mapping[str, PackedLinear], dtype: torch.dtype) -> FusedMlp | str:
    """The module's fused form, or why it has none."""
    if "forward" in vars(module):
        return "has a forward of its own"
    candidates: list[tuple[tuple[str, ...], Activation]] | None = None
    for of_trial in (torch.float32, dtype):
        try:
            trial = _try(module, linears, of_trial)
        except MODEL_ERRORS as error:
            raise_unless_of_model(error)
            return f"cannot be called on one tensor: {type(error).__name__}"
        if trial is None:
            break
        if candidates is None:
            orders = dict.fromkeys((trial.first, trial.first[::-1]))
            candidates = [(order, kind) for order in orders for kind in ACTIVATIONS]
        if not trial.product.is_meta:
            # The first one: no other computes the same in float32, and each is a kernel to be compiled.
            candidates = list(islice((one for one in candidates if _computes(trial, *one)), 1))
    if not candidates or trial is None:
        return "not the product of an activated gate and up between linear layers"
    first, kind = candidates[0]
    return FusedMlp(tuple(linears[name] for name in first), linears[trial.down], kind)


def _try(module: nn.Module, linears: Mapping[str, PackedLinear], dtype: torch.dtype) -> _Trial | None:
    """Call the module's own code; None if its linear layers are not called as those of a gated MLP."""
    weight = next(iter(linears.values())).weight
    stubs = {
        name: _Recorded(SPREAD * random_input((ROWS, linear.out_features), dtype, weight.device))
        for name, linear in linears.items()
    }
    probe = copy.copy(module)
    probe._modules = {**module._modules, **stubs}
    x = random_input((ROWS, next(iter(linears.values())).in_features), dtype, weight.device)
    with torch.no_grad():
        out = probe(x)
    calls = {name: stub.inputs for name, stub in stubs.items()}
    if not isinstance(out, Tensor) or any(len(inputs) != 1 for inputs in calls.values()):
        return None
    first = tuple(name for name, (given,) in calls.items() if _is_same(given, x))
    rest = [name for name in stubs if name not in first]
    if len(rest) != 1 or not _is_same(out, stubs[rest[0]].output):
        return None
    outputs = tuple(stubs[name].output for name in first)
    (product,) = calls[rest[0]]
    width = sum(each.shape[-1] for each in outputs) // 2
    return _Trial(first, outputs, rest[0], product) if product.shape == (ROWS, width) else None


def _is_same(found: Tensor, expected: Tensor) -> bool:
    if found is expected:
        return True
    return found.shape == expected.shape and not found.is_meta and torch.equal(found, expected)


def _computes(trial: _Trial, order: tuple[str, ...], kind: Activation) -> bool:
    """Whether the kernel, given the first layers in this order, computes the module's product."""
    outputs = dict(zip(trial.first, trial.outputs, strict=True))
    found: Tensor = _GatedFunction.apply(kind, *(outputs[name] for name in order))  # type: ignore[no-untyped-call]
    return is_equal(found, trial.product)
