"""Norms, rotary embeddings and gated activations: values and gradients beside float64, and a row's bits."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from transformers.models.gemma2.modeling_gemma2 import Gemma2RMSNorm
from transformers.models.llama.modeling_llama import LlamaRMSNorm
from transformers.models.olmo2.modeling_olmo2 import Olmo2RMSNorm

from lora_runner.kernels.gated_activation import (
    ACTIVATIONS,
    Activation,
    gated_activation,
    gated_activation_backward,
)
from lora_runner.kernels.rms_norm import MAX_WIDTH, NormForm, rms_norm, rms_norm_backward
from lora_runner.kernels.rotary import RotaryForm, rotate
from tests.lora_runner.kernels.interpreter import DEVICE

DTYPES = (torch.float32, torch.float16, torch.bfloat16)
LLAMA, GEMMA, OLMO2 = NormForm(False, True), NormForm(True, False), NormForm(False, False)
FORMS = (RotaryForm(False, False), RotaryForm(True, False), RotaryForm(True, True))
EPS = 1e-6
FP32 = torch.finfo(torch.float32).eps

pytestmark = pytest.mark.usefixtures("seed")


def normal(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(shape, dtype=torch.float32).to(dtype).to(DEVICE)


def assert_close(
    found: Tensor, expected: Tensor, size: Tensor, num_roundings: int = 2, *, inside: Tensor | None = None
) -> None:
    """Within `num_roundings` to the dtype of terms of this size, and 64 in float32 of those inside."""
    kind = torch.finfo(found.dtype)
    allowed = num_roundings * kind.eps / 2 * 1.02 * size + 64 * FP32 * (size if inside is None else inside)
    allowed += kind.smallest_normal * kind.eps * (1 + size)  # below the normal numbers
    error = (found.double() - expected).abs()
    assert bool((error <= allowed).all()), float((error / allowed).max())


def assert_same_rows(compute: Callable[[Tensor], Tensor], rows: Tensor, dim: int = 0) -> None:
    """A row is computed to the same bits alone, among 7 and among many, also beside rows of NaN."""
    together = compute(rows)
    num = rows.shape[dim]
    bad = rows.clone()
    bad.narrow(dim, 0, num // 2).fill_(torch.nan)
    beside_nan = compute(bad)
    for start, size in ((0, 1), (num - 1, 1), (3, 7), (num // 2, num - num // 2)):
        part = together.narrow(dim, start, size)
        assert torch.equal(compute(rows.narrow(dim, start, size)), part)
        if start >= num // 2:
            assert torch.equal(beside_nan.narrow(dim, start, size), part)


# --- RMSNorm ------------------------------------------------------------------------------------------


def exact_norm(x: Tensor, weight: Tensor, form: NormForm) -> Tensor:
    return x * (x.square().mean(-1, keepdim=True) + EPS).rsqrt() * (weight + int(form.adds_one))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("form", [LLAMA, GEMMA, OLMO2])
@pytest.mark.parametrize("width", [16, 72, 576, 4096])
def test_a_norm_and_its_gradient_are_those_of_float64(width: int, form: NormForm, dtype: torch.dtype) -> None:
    x, grad, weight = normal(5, width, dtype=dtype), normal(5, width, dtype=dtype), normal(width, dtype=dtype)
    wide = x.double().requires_grad_()
    expected = exact_norm(wide, weight.double(), form)
    expected.backward(grad.double())
    assert_close(rms_norm(x, weight, EPS, form), expected.detach(), expected.detach().abs())
    inverse = (x.double().square().mean(-1, keepdim=True) + EPS).rsqrt()
    normed = x.double() * inverse
    dnormed = grad.double() * (weight.double() + int(form.adds_one))
    size = inverse * (dnormed.abs() + normed.abs() * (dnormed * normed).abs().mean(-1, keepdim=True))
    assert wide.grad is not None
    assert_close(rms_norm_backward(grad, x, weight, EPS, form), wide.grad, size)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize(
    ("module", "form"), [(LlamaRMSNorm, LLAMA), (Gemma2RMSNorm, GEMMA), (Olmo2RMSNorm, OLMO2)]
)
def test_a_norm_rounds_where_the_models_module_does(
    module: type[nn.Module], form: NormForm, dtype: torch.dtype
) -> None:
    """The mean's last bit may tip few elements; rounding elsewhere changes one in four."""
    width = 512
    norm = module(width, EPS).to(DEVICE, dtype).requires_grad_(False)
    norm.weight.copy_(normal(width))
    x, grad = normal(8, width, dtype=dtype).requires_grad_(), normal(8, width, dtype=dtype)
    expected = norm(x)
    expected.backward(grad)
    assert x.grad is not None
    found = rms_norm(x.detach(), norm.weight, EPS, form)
    assert (found != expected).float().mean() < 0.02
    backward = rms_norm_backward(grad, x.detach(), norm.weight, EPS, form)
    assert (backward != x.grad).float().mean() < 0.05


@pytest.mark.parametrize("size", [32, 24])
def test_a_norm_takes_the_heads_of_a_joint_tensor(size: int) -> None:
    joint, weight = normal(1, 6, 12 * size), normal(size)
    heads = joint[..., 2 * size : 6 * size].unflatten(-1, (4, size))  # (1, 6, 4, size)
    assert torch.equal(rms_norm(heads, weight, EPS, LLAMA), rms_norm(heads.contiguous(), weight, EPS, LLAMA))
    grad = normal(1, 4, 6, size).transpose(1, 2)
    assert torch.equal(
        rms_norm_backward(grad, heads, weight, EPS, LLAMA),
        rms_norm_backward(grad.contiguous(), heads.contiguous(), weight, EPS, LLAMA),
    )


@pytest.mark.parametrize(("width", "num_rows"), [(32, 1000), (1024, 41), (4096, 20)])
def test_a_norms_row_depends_on_itself_alone(width: int, num_rows: int) -> None:
    weight, other = normal(width), normal(num_rows, width)
    assert_same_rows(lambda x: rms_norm(x, weight, EPS, LLAMA), normal(num_rows, width))
    both = torch.stack([normal(num_rows, width), other], dim=1)
    assert_same_rows(lambda x: rms_norm_backward(x[:, 0], x[:, 1], weight, EPS, LLAMA), both)


def test_a_row_at_an_odd_address_has_the_same_bits() -> None:
    rows, weight = normal(2 * 1024 + 1), normal(1024)
    odd = rows[1:].view(2, 1024)
    assert torch.equal(rms_norm(odd, weight, EPS, LLAMA), rms_norm(odd.clone(), weight, EPS, LLAMA))


def test_a_row_too_wide_for_a_program_is_refused() -> None:
    with pytest.raises(ValueError, match=f"at most {MAX_WIDTH}"):
        rms_norm(normal(1, MAX_WIDTH + 1), normal(MAX_WIDTH + 1), EPS, LLAMA)


# --- rotary embeddings --------------------------------------------------------------------------------


def rotation(cos: Tensor, sin: Tensor, form: RotaryForm) -> Tensor:
    """The map of a head's rotated elements as matrices (T, R, R)."""
    num_rows, rotated = cos.shape
    matrices = torch.zeros(num_rows, rotated, rotated, dtype=torch.float64, device=cos.device)
    for pair in range(rotated // 2):
        a, b = (2 * pair, 2 * pair + 1) if form.interleaved else (pair, pair + rotated // 2)
        at_a, at_b = (pair, pair) if form.shares_angles else (a, b)
        matrices[:, a, a], matrices[:, a, b] = cos[:, at_a], -sin[:, at_a]
        matrices[:, b, b], matrices[:, b, a] = cos[:, at_b], sin[:, at_b]
    return matrices


def apply_to_heads(matrices: Tensor, x: Tensor) -> Tensor:
    rotated = matrices.shape[-1]
    return torch.cat(
        [torch.einsum("tij,thj->thi", matrices, x.double()[..., :rotated]), x.double()[..., rotated:]], dim=-1
    )


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(("width", "rotated"), [(32, 32), (24, 24), (32, 12)])
@pytest.mark.parametrize("backward", [False, True])
def test_a_rotation_and_its_gradient_are_those_of_float64(
    width: int, rotated: int, form: RotaryForm, dtype: torch.dtype, backward: bool
) -> None:
    q, k = normal(3, 5, width, dtype=dtype), normal(3, 2, width, dtype=dtype)
    cos, sin = normal(3, rotated, dtype=dtype), normal(3, rotated, dtype=dtype)
    matrices = rotation(cos.double(), sin.double(), form)
    if backward:
        matrices = matrices.transpose(1, 2)
    for x, found in zip((q, k), rotate(q, k, cos, sin, form, backward=backward), strict=True):
        size = apply_to_heads(matrices.abs(), x.abs())
        assert_close(found, apply_to_heads(matrices, x), size, num_roundings=1)


@pytest.mark.parametrize("in_place", [False, True])
def test_a_rotation_reads_columns_of_a_joint_tensor(in_place: bool) -> None:
    joint = normal(4, 10, 16)
    before, cos, sin = joint.clone(), normal(4, 12), normal(4, 12)
    expected = rotate(before[:, :6].contiguous(), before[:, 6:8].contiguous(), cos, sin, FORMS[0])
    found = rotate(joint[:, :6], joint[:, 6:8], cos, sin, FORMS[0], in_place=in_place)
    for here, there in zip(found, expected, strict=True):
        assert torch.equal(here, there)
        assert here.is_contiguous() != in_place
    assert torch.equal(joint[:, 8:], before[:, 8:])
    assert torch.equal(joint[:, :6], expected[0] if in_place else before[:, :6])


def test_rotated_rows_depend_on_themselves_alone() -> None:
    cos, sin = normal(1, 16), normal(1, 16)

    def rotated(x: Tensor) -> Tensor:
        q, k = rotate(x[:, :5], x[:, 5:], cos.expand(len(x), -1), sin.expand(len(x), -1), FORMS[0])
        return torch.cat([q, k], dim=1)

    assert_same_rows(rotated, normal(100, 7, 16))


# --- gated activations --------------------------------------------------------------------------------

TORCH_ACTIVATIONS: dict[Activation, Callable[[Tensor], Tensor]] = {
    "silu": nn.functional.silu,
    "gelu_tanh": lambda x: nn.functional.gelu(x, approximate="tanh"),
    "gelu": nn.functional.gelu,
}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", ACTIVATIONS)
@pytest.mark.parametrize("width", [48, 1500])
def test_a_gated_activation_and_its_gradients_are_those_of_float64(
    width: int, kind: Activation, dtype: torch.dtype
) -> None:
    joint, grad = normal(3, 2 * width, dtype=dtype) * 3, normal(3, width, dtype=dtype)
    gate, up = joint.chunk(2, dim=-1)
    wide, wide_up = gate.double().requires_grad_(), up.double().requires_grad_()
    expected = TORCH_ACTIVATIONS[kind](wide) * wide_up
    expected.backward(grad.double())
    exact = expected.detach()
    assert_close(gated_activation(gate, up, kind), exact, exact.abs(), inside=(wide * wide_up).detach().abs())
    found = gated_activation_backward(grad, gate, up, kind)
    assert found.is_contiguous()
    # 1 - act(x) / x, which slopes contain, is exact to a rounding of 1, and is multiplied by x.
    factors = (1 + wide.detach().abs()) * up.double().abs(), wide.detach().abs()
    for here, slope, factor in zip(found.chunk(2, dim=-1), (wide.grad, wide_up.grad), factors, strict=True):
        assert slope is not None
        assert_close(here, slope, slope.abs(), inside=factor * grad.double().abs())


@pytest.mark.parametrize("kind", ACTIVATIONS)
def test_gated_rows_depend_on_themselves_alone(kind: Activation) -> None:
    rows = normal(100, 60)
    assert_same_rows(lambda x: gated_activation(x[:, :20], x[:, 20:40], kind), rows)
    assert_same_rows(lambda x: gated_activation_backward(x[:, 40:], x[:, :20], x[:, 20:40], kind), rows)


def test_large_gates_stay_finite() -> None:
    gate = torch.tensor([[-1e4, -100.0, 100.0, 1e4]], device=DEVICE)
    for kind in ACTIVATIONS:
        assert gated_activation(gate, torch.ones_like(gate), kind).tolist() == [[0.0, 0.0, 100.0, 1e4]]
        slopes = gated_activation_backward(torch.ones_like(gate), gate, torch.ones_like(gate), kind)[:, :4]
        assert slopes.tolist() == [[0.0, 0.0, 1.0, 1.0]]
