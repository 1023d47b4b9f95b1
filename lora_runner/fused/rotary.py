"""The rotary embeddings of a model's queries and keys, in one launch each way.

A model calls a function of its Python module, `apply_rotary_pos_emb`. In its place comes an object that calls
the kernel in the passes of a fused pack, and that function in all others.
"""

from __future__ import annotations

import inspect
import sys
import weakref
from collections.abc import Callable
from itertools import islice
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from lora_runner.base.liger import ROTARY
from lora_runner.fused.replaced import (
    MODEL_ERRORS,
    Replaced,
    is_equal,
    raise_unless_of_model,
    random_input,
)
from lora_runner.kernels.rotary import RotaryForm, rotate
from lora_runner.layers.linear import PackContext

FORMS = tuple(RotaryForm(*choices) for choices in ((False, False), (True, False), (True, True)))
"""Those of transformers' models: Llama's and most others', Cohere's, GLM's."""
ROTATED, WIDTH = 32, 48
"""Of the heads on which a function is tried: elements that are rotated, and in all."""


def fuse_rotary(model: nn.Module, context: PackContext, dtype: torch.dtype) -> Replaced:
    """Let the model's rotary embeddings be computed by a kernel in fused passes of `context`.

    Only where it gives what the model's own function gives; on the meta device it is taken for Llama's.
    `dtype` is that of the activations.
    """
    device = next(model.parameters()).device
    modules = {type(module).__module__: module for module in model.modules()}
    count, left = 0, list[tuple[str, str]]()
    for name in modules:
        holder = sys.modules.get(name)
        if holder is None or not hasattr(holder, ROTARY):
            continue
        found = _fused(holder, dtype, device)
        if isinstance(found, str):
            left.append((f"{ROTARY} of {name}", found))
        else:
            found.serve(context)
            count += 1
    return Replaced.of(count, left)


def leave_rotary(model: nn.Module, context: PackContext) -> None:
    """Let the model's own function compute in all passes of `context` again."""
    for name in {type(module).__module__ for module in model.modules()}:
        fused = getattr(sys.modules.get(name), ROTARY, None)
        if isinstance(fused, FusedRotary):
            fused.leave(context)


def _fused(holder: ModuleType, dtype: torch.dtype, device: torch.device) -> FusedRotary | str:
    """What is in the place of a Python module's function from now on, or why nothing can be."""
    own = getattr(holder, ROTARY)
    if isinstance(own, FusedRotary):
        return own
    if list(inspect.signature(own).parameters)[:4] != ["q", "k", "cos", "sin"]:
        return "does not take queries and keys together"
    forms = dict[bool, RotaryForm]()
    for is_partial, width in ((False, ROTATED), (True, WIDTH)):
        if device.type == "meta":
            forms[is_partial] = FORMS[0]
        elif (form := _form_of(own, width, dtype, device)) is not None:
            forms[is_partial] = form
    if not forms:
        return "computes something else than the kernel"
    fused = FusedRotary(own, forms)
    setattr(holder, ROTARY, fused)
    return fused


def _form_of(
    own: Callable[..., tuple[Tensor, Tensor]], width: int, dtype: torch.dtype, device: torch.device
) -> RotaryForm | None:
    """The form in which the kernel computes what the function computes on heads of this width."""
    candidates = FORMS
    for of_trial in (torch.float32, dtype):
        q, k, cos, sin = (
            random_input(shape, of_trial, device)
            for shape in ((1, 4, 5, width), (1, 2, 5, width), (1, 5, ROTATED), (1, 5, ROTATED))
        )
        try:
            expected = own(q, k, cos, sin)
        except MODEL_ERRORS as error:
            raise_unless_of_model(error)
            return None
        equal = (
            form
            for form in candidates
            if all(map(is_equal, _RotaryFunction.apply(q, k, cos, sin, form), expected))  # type: ignore[no-untyped-call]
        )
        # The first one: no other computes the same in float32, and each is a kernel to be compiled.
        candidates = tuple(islice(equal, 1))
    return candidates[0] if candidates else None


class FusedRotary:
    """Takes the place of `own` in a Python module, which other models may use too."""

    def __init__(self, own: Callable[..., tuple[Tensor, Tensor]], forms: dict[bool, RotaryForm]) -> None:
        """`forms`: by whether only a part of a head is rotated."""
        self.own, self._forms = own, forms
        self._contexts = list[weakref.ref[PackContext]]()

    def serve(self, context: PackContext) -> None:
        """Compute by the kernel in the fused passes of this pack from now on."""
        self._contexts = [known for known in self._contexts if known() is not None]
        if not any(known() is context for known in self._contexts):
            self._contexts.append(weakref.ref(context))

    def leave(self, context: PackContext) -> None:
        """Serve this pack no more."""
        self._contexts = [known for known in self._contexts if known() is not context]

    def __call__(
        self, q: Tensor, k: Tensor, cos: Tensor, sin: Tensor, *rest: Any, **named: Any
    ) -> tuple[Tensor, Tensor]:
        form = None if rest or named else self._form_for(q, k, cos, sin)
        if form is None:
            return self.own(q, k, cos, sin, *rest, **named)
        out: tuple[Tensor, Tensor] = _RotaryFunction.apply(q, k, cos, sin, form)  # type: ignore[no-untyped-call]
        return out

    def _form_for(self, q: Tensor, k: Tensor, cos: Tensor, sin: Tensor) -> RotaryForm | None:
        if not any(
            (context := known()) is not None and context.fused is not None for known in self._contexts
        ):
            return None
        is_known = (
            q.dim() == k.dim() == 4
            and cos.dim() == 3
            and cos.shape == sin.shape
            and q.shape[0] == k.shape[0] == cos.shape[0]
            and q.shape[2] == k.shape[2] == cos.shape[1]
            and q.shape[3] == k.shape[3] >= cos.shape[2]
            and q.dtype == k.dtype
        )
        return self._forms.get(cos.shape[2] < q.shape[3]) if is_known else None


class _RotaryFunction(torch.autograd.Function):
    """q (B, H, T, D) and k (B, H', T, D) -> the same shapes, in the memory order (B, T, H, D)."""

    @staticmethod
    def forward(
        ctx: Any, q: Tensor, k: Tensor, cos: Tensor, sin: Tensor, form: RotaryForm
    ) -> tuple[Tensor, ...]:
        ctx.save_for_backward(cos, sin)
        ctx.form = form
        rotated = rotate(_rows(q), _rows(k), cos.flatten(0, 1), sin.flatten(0, 1), form)
        return tuple(_heads(out, x) for out, x in zip(rotated, (q, k), strict=True))

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, dq: Tensor, dk: Tensor) -> tuple[Tensor | None, ...]:
        cos, sin = (angles.flatten(0, 1) for angles in ctx.saved_tensors)
        q, k = _rows(dq), _rows(dk)
        back = rotate(q, k, cos, sin, ctx.form, backward=True, in_place=_are_columns_of_more(q, k))
        return *(_heads(out, x) for out, x in zip(back, (dq, dk), strict=True)), None, None, None


def _rows(x: Tensor) -> Tensor:
    """(B, H, T, D) -> (B T, H, D), a view where the strides allow it."""
    rows = x.transpose(1, 2)
    return (rows if rows.stride(-1) == 1 else rows.contiguous()).flatten(0, 1)


def _heads(x: Tensor, like: Tensor) -> Tensor:
    """(B T, H, D) -> (B, H, T, D)."""
    return x.view(like.shape[0], like.shape[2], *x.shape[1:]).transpose(1, 2)


def _are_columns_of_more(q: Tensor, k: Tensor) -> bool:
    """Whether gradients (T, H, D) and (T, H', D) lie side by side in rows with further columns behind.

    Only attention's backward pass makes such a tensor, that of queries, keys and values, and no one else has
    it: they are rotated where they are, and the product that comes next reads all three without a copy.
    """
    heads, width = q.shape[1], q.shape[2]
    row = q.stride(0)
    return (
        q.untyped_storage()._cdata == k.untyped_storage()._cdata
        and q.stride() == k.stride() == (row, width, 1)
        and k.storage_offset() == q.storage_offset() + heads * width
        and row > (heads + k.shape[1]) * width
    )
