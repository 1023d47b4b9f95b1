"""Ways to compute norms, rotary embeddings and gated activations, forward and backward."""

# mypy: disable-error-code="import-untyped"
from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from lora_runner.certificate.ways.case import Case, RowCase, Setting, Tensors
from lora_runner.certificate.ways.references import rounding, with_gradients

EPSILON = 1e-5
"""Of the norm, as in Llama 3."""
Function = Callable[..., Tensors]
"""Of rows, their gradients and `sizes`: outputs and gradients."""


def norm_case(setting: Setting, function: Callable[..., Tensors], weight: Tensor) -> RowCase:
    """RMSNorm of the hidden state; `function(x, grad, sizes=)` -> output and gradient."""
    width = weight.shape[0]

    def exact(x: Tensor) -> Tensors:
        return (weight.double() * x * torch.rsqrt(x.square().mean(-1, keepdim=True) + EPSILON),)

    return RowCase(
        f"RMSNorm of {width}",
        draw=lambda rows: (setting.normal(rows, width), setting.normal(rows, width)),
        function=function,
        reference=lambda x, grad: with_gradients(exact, (x,), (grad,)),
        bound=rounding(setting.dtype, 3, width),
        work_per_row=5.0 * width * setting.dtype.itemsize,
    )


def norm_weight(setting: Setting) -> Tensor:
    """A frozen norm's weight."""
    return 1 + setting.normal(setting.sizes.hidden, scale=0.1)


def rotary_case(setting: Setting, function: Callable[..., Tensors]) -> RowCase:
    """Rotated heads; `function(q, k, cos, sin, grad q, grad k, sizes=)` -> both and their gradients."""
    sizes = setting.sizes
    size = sizes.head_size

    def draw(rows: int) -> Tensors:
        angles = setting.normal(rows, size // 2, scale=3.0, dtype=torch.float32).repeat(1, 2)
        heads = [
            setting.normal(rows, count, size) for count in (sizes.num_heads, sizes.num_key_value_heads) * 2
        ]
        return (
            heads[0],
            heads[1],
            angles.cos().to(setting.dtype),
            angles.sin().to(setting.dtype),
            heads[2],
            heads[3],
        )

    def reference(q: Tensor, k: Tensor, cos: Tensor, sin: Tensor, dq: Tensor, dk: Tensor) -> Tensors:
        def exact(*heads: Tensor) -> Tensors:
            return tuple(x * cos[:, None] + _half_turned(x) * sin[:, None] for x in heads)

        return with_gradients(exact, (q, k), (dq, dk))

    return RowCase(
        f"{sizes.num_heads} and {sizes.num_key_value_heads} heads of {size}",
        draw=draw,
        function=function,
        reference=reference,
        bound=rounding(setting.dtype, 3, 2),
        work_per_row=4.0 * (sizes.num_heads + sizes.num_key_value_heads) * size * setting.dtype.itemsize,
    )


def _half_turned(x: Tensor) -> Tensor:
    first, second = x.chunk(2, dim=-1)
    return torch.cat((-second, first), dim=-1)


def activation_case(setting: Setting, function: Callable[..., Tensors]) -> RowCase:
    """SwiGLU; `function(gate, up, grad, sizes=)` -> output and both gradients."""
    width = setting.sizes.intermediate
    return RowCase(
        f"SwiGLU of {width}",
        draw=lambda rows: tuple(setting.normal(rows, width) for _ in range(3)),
        function=function,
        reference=lambda gate, up, grad: with_gradients(_swiglu, (gate, up), (grad,)),
        bound=rounding(setting.dtype, 3, 1),
        work_per_row=8.0 * width * setting.dtype.itemsize,
    )


def _swiglu(gate: Tensor, up: Tensor) -> Tensors:
    return (F.silu(gate) * up,)


# --- transformers' own layers ---------------------------------------------------------------------


def own_norm(setting: Setting) -> Iterator[Case]:
    """transformers' RMSNorm."""
    from transformers.models.llama.modeling_llama import LlamaRMSNorm

    yield norm_case(setting, *_norm_function(setting, LlamaRMSNorm))


def own_rotary(setting: Setting) -> Iterator[Case]:
    """transformers' rotary embeddings."""
    from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

    yield rotary_case(setting, _rotary_function(apply_rotary_pos_emb))


def own_activation(setting: Setting) -> Iterator[Case]:
    """torch's SiLU and a product."""

    def function(gate: Tensor, up: Tensor, grad: Tensor, *, sizes: Sequence[int]) -> Tensors:
        return with_gradients(_swiglu, (gate, up), (grad,))

    yield activation_case(setting, function)


# --- Liger's --------------------------------------------------------------------------------------
# Some of its kernels write to their inputs: they get copies.


def liger_norm(setting: Setting) -> Iterator[Case]:
    """Liger's RMSNorm."""
    from liger_kernel.transformers import LigerRMSNorm

    yield norm_case(setting, *_norm_function(setting, LigerRMSNorm))


def liger_rotary(setting: Setting) -> Iterator[Case]:
    """Liger's rotary embeddings."""
    from liger_kernel.transformers import liger_rotary_pos_emb

    yield rotary_case(setting, _rotary_function(liger_rotary_pos_emb))


def liger_activation(setting: Setting) -> Iterator[Case]:
    """Liger's SwiGLU."""
    from liger_kernel.transformers.functional import liger_swiglu

    def function(gate: Tensor, up: Tensor, grad: Tensor, *, sizes: Sequence[int]) -> Tensors:
        copies = gate.clone(), up.clone()
        return with_gradients(lambda a, b: (liger_swiglu(a, b),), copies, (grad.clone(),))

    yield activation_case(setting, function)


def _norm_function(setting: Setting, kind: Callable[..., torch.nn.Module]) -> tuple[Function, Tensor]:
    weight = norm_weight(setting)
    module = kind(weight.shape[0], eps=EPSILON).to(setting.device, setting.dtype).requires_grad_(False)
    module.load_state_dict({"weight": weight})

    def function(x: Tensor, grad: Tensor, *, sizes: Sequence[int]) -> Tensors:
        return with_gradients(lambda y: (module(y[None])[0],), (x,), (grad.clone(),))

    return function, weight


def _rotary_function(apply: Callable[..., tuple[Tensor, Tensor]]) -> Function:
    def function(
        q: Tensor, k: Tensor, cos: Tensor, sin: Tensor, dq: Tensor, dk: Tensor, *, sizes: Sequence[int]
    ) -> Tensors:
        def rotated(*heads: Tensor) -> Tensors:
            out = apply(*(x.clone().transpose(0, 1)[None] for x in heads), cos[None], sin[None])
            return tuple(x[0].transpose(0, 1) for x in out)

        return with_gradients(rotated, (q, k), (dq.clone(), dk.clone()))

    return function


# --- the fused path's kernels ---------------------------------------------------------------------


def fused_norm(setting: Setting) -> Iterator[Case]:
    """This program's RMSNorm, in Llama's order of rounding."""
    from lora_runner.kernels.rms_norm import NormForm, rms_norm, rms_norm_backward

    weight, form = norm_weight(setting), NormForm(adds_one=False, rounds_first=True)

    def function(x: Tensor, grad: Tensor, *, sizes: Sequence[int]) -> Tensors:
        return rms_norm(x, weight, EPSILON, form), rms_norm_backward(grad, x, weight, EPSILON, form)

    yield norm_case(setting, function, weight)


def fused_rotary(setting: Setting) -> Iterator[Case]:
    """This program's rotary embeddings, in Llama's pairs."""
    from lora_runner.kernels.rotary import RotaryForm, rotate

    form = RotaryForm(interleaved=False, shares_angles=False)

    def function(
        q: Tensor, k: Tensor, cos: Tensor, sin: Tensor, dq: Tensor, dk: Tensor, *, sizes: Sequence[int]
    ) -> Tensors:
        return (*rotate(q, k, cos, sin, form), *rotate(dq, dk, cos, sin, form, backward=True))

    yield rotary_case(setting, function)


def fused_activation(setting: Setting) -> Iterator[Case]:
    """This program's SwiGLU."""
    from lora_runner.kernels.gated_activation import gated_activation, gated_activation_backward

    def function(gate: Tensor, up: Tensor, grad: Tensor, *, sizes: Sequence[int]) -> Tensors:
        joint = gated_activation_backward(grad, gate, up, "silu")
        return (gated_activation(gate, up, "silu"), *joint.chunk(2, dim=-1))

    yield activation_case(setting, function)
