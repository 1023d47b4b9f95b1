"""Which parts of real models are taken over by kernels, and that their numbers stay the model's."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, PreTrainedModel

from lora_runner.base.liger import ROTARY, use_liger
from lora_runner.fused.mlp import fuse_mlps
from lora_runner.fused.norms import FusedNorm, fuse_norms
from lora_runner.fused.rotary import FusedRotary, fuse_rotary
from lora_runner.kernels.launch import observed
from lora_runner.kernels.rms_norm import NormForm
from lora_runner.layers.linear import PackContext, RowOwners
from lora_runner.pack.convert_model import replace_modules
from lora_runner.pack.options import PackOptions
from tests.lora_runner.kernels.interpreter import DEVICE

LAYERS, ROWS = 2, 9
USUAL: dict[str, Any] = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
}

pytestmark = pytest.mark.usefixtures("seed", "own_functions")


@pytest.fixture
def own_functions() -> Iterator[None]:
    """Puts the functions of transformers' modules back."""
    yield
    for module in list(sys.modules.values()):
        if isinstance(fused := getattr(module, ROTARY, None), FusedRotary):
            setattr(module, ROTARY, fused.own)


class Converted:
    """A tiny model with packed linear layers, and a pass of one block through its decoder."""

    def __init__(self, kind: str, device: torch.device = DEVICE, **config: Any) -> None:
        made = getattr(transformers, f"{kind}Config")(**{**USUAL, **config})
        with device:
            self.model: PreTrainedModel = AutoModelForCausalLM.from_config(made, attn_implementation="eager")
        self.model.requires_grad_(False).eval()
        if device.type == "meta":
            self.model.to(torch.bfloat16)  # as on CUDA; products of blocks have no other there
        for module in self.model.modules():  # a new Gemma's norms would multiply by one
            if "norm" in type(module).__name__.lower() and device.type != "meta":
                for weight in module.parameters(recurse=False):
                    weight.add_(0.2 * torch.randn_like(weight))
        self.context = PackContext()
        replace_modules(self.model, self.context, PackOptions())
        size = self.model.config.hidden_size
        self.embedded = torch.randn(1, ROWS, size, device=device, dtype=self.model.dtype)

    def compute(self) -> tuple[Tensor, Tensor]:
        """The decoder's output and the gradient of its input."""
        self.context.rows = RowOwners([None], [ROWS])
        x = self.embedded.clone().requires_grad_()
        mask = torch.ones(1, ROWS, device=x.device)  # or the meta device would be asked for packed sequences
        out = self.model.get_decoder()(inputs_embeds=x, attention_mask=mask, use_cache=False)[0]
        out.square().sum().backward()
        assert x.grad is not None
        return out.detach(), x.grad

    def launches(self) -> Counter[str]:
        seen = list[str]()
        with observed(lambda name, _: seen.append(name)):
            self.compute()
        return Counter(seen)


def module_of(model: PreTrainedModel) -> Any:
    return sys.modules[type(model).__module__]


def assert_near(found: tuple[Tensor, ...], expected: tuple[Tensor, ...]) -> None:
    """Equal but for float32's rounding, which a few layers amplify."""
    for here, there in zip(found, expected, strict=True):
        assert (here - there).abs().max() <= 2e-4 * there.abs().max()


@pytest.mark.parametrize(
    ("kind", "config", "num_norms", "num_mlps", "num_rotary"),
    [
        ("Llama", {}, 5, 2, 1),
        ("Mistral", {}, 5, 2, 1),
        ("Qwen3", {"head_dim": 16}, 9, 2, 1),
        ("Gemma2", {"head_dim": 8}, 9, 2, 1),
        ("Olmo2", {}, 9, 2, 1),
        ("Phi3", {"partial_rotary_factor": 0.5}, 5, 2, 1),
        ("Glm4", {"head_dim": 8}, 9, 2, 1),
        ("Cohere", {}, 0, 2, 1),
        ("GPTNeoX", {}, 0, 0, 1),
        ("OPT", {"ffn_dim": 48, "word_embed_proj_dim": 32}, 0, 0, 0),
    ],
)
def test_the_parts_of_a_model_are_found_and_compute_what_they_did(
    kind: str, config: dict[str, Any], num_norms: int, num_mlps: int, num_rotary: int
) -> None:
    made = Converted(kind, **config)
    plain = made.compute()
    norms = fuse_norms(made.model)
    mlps = fuse_mlps(made.model, torch.float32)
    rotary = fuse_rotary(made.model, made.context, torch.float32)
    assert (norms.count, mlps.count, rotary.count) == (num_norms, num_mlps, num_rotary), (norms, mlps, rotary)
    made.context.fused = True
    assert made.launches() == Counter(
        {
            "rms_norm_kernel": num_norms,
            "rms_norm_backward_kernel": num_norms,
            "gated_activation_kernel": num_mlps,
            "gated_activation_backward_kernel": num_mlps,
            "rotary_kernel": 2 * LAYERS * num_rotary,
        }
    )
    assert_near(made.compute(), plain)


@pytest.mark.parametrize(
    ("kind", "num_norms", "form"),
    [
        ("Llama", 5, NormForm(adds_one=False, rounds_first=True)),
        ("Gemma2", 9, NormForm(adds_one=True, rounds_first=False)),
        ("Olmo2", 9, NormForm(adds_one=False, rounds_first=False)),
        ("Phi3", 5, NormForm(adds_one=False, rounds_first=True)),
        ("Glm4", 9, NormForm(adds_one=False, rounds_first=True)),
        ("Cohere", 0, None),
    ],
)
def test_parts_are_found_in_bfloat16_too(kind: str, num_norms: int, form: NormForm | None) -> None:
    made = Converted(kind, head_dim=8) if kind in ("Gemma2", "Glm4") else Converted(kind)
    made.model.to(torch.bfloat16)
    assert fuse_norms(made.model).count == num_norms
    forwards = [vars(module).get("forward") for module in made.model.modules()]
    assert {each.form for each in forwards if isinstance(each, FusedNorm)} == ({form} if form else set())
    assert fuse_mlps(made.model, torch.bfloat16).count == LAYERS
    assert fuse_rotary(made.model, made.context, torch.bfloat16).count == 1


def test_what_stays_as_it_is_says_why() -> None:
    made = Converted("GPTNeoX")
    norms = fuse_norms(made.model)
    assert norms.count == 0
    (reason,) = norms.reasons
    where, why = reason.split(": ")
    assert (where, why) == (
        "gpt_neox.layers.0.input_layernorm and 4 more",
        "LayerNorm, which torch's own kernels compute row by row",
    )
    assert norms.describe() == norms.reasons[0]
    mlps = fuse_mlps(made.model, torch.float32)
    assert mlps.reasons == (
        "gpt_neox.layers.0.mlp and 1 more: not the product of an activated gate and up between linear layers",
    )
    llama = Converted("Llama")
    assert fuse_norms(llama.model).describe() == "5 in one launch each way"
    fused = fuse_rotary(llama.model, llama.context, torch.float32)
    assert fused.describe("queries and keys") == "queries and keys in one launch each way"
    assert (
        fuse_mlps(Converted("OPT", ffn_dim=48, word_embed_proj_dim=32).model, torch.float32).describe()
        == "none"
    )


class ScaledNorm(nn.Module):
    def __init__(self, scale: float) -> None:
        super().__init__()
        self.weight, self.eps, self.scale = nn.Parameter(torch.ones(32, device=DEVICE)), 1e-6, scale

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.rms_norm(x, (32,), self.weight, self.eps) * self.scale


@pytest.mark.parametrize(("scale", "count"), [(1.0, 1), (1.001, 0)])
def test_a_norm_is_known_by_its_numbers(scale: float, count: int) -> None:
    found = fuse_norms(nn.ModuleList([ScaledNorm(scale)]))
    assert found.count == count
    assert found.reasons == (("0: computes something else than the kernel",) if not count else ())


@pytest.mark.parametrize(
    ("activation", "is_known"),
    [("silu", True), ("gelu_pytorch_tanh", True), ("gelu", True), ("gelu_new", True), ("quick_gelu", False)],
)
def test_an_activation_is_known_by_its_numbers(activation: str, is_known: bool) -> None:
    made = Converted("Llama", hidden_act=activation)
    plain = made.compute()
    assert fuse_mlps(made.model, torch.float32).count == LAYERS * is_known
    assert_near(made.compute(), plain)


def test_an_mlp_that_does_more_is_left_alone() -> None:
    made = Converted("FalconH1", mlp_multipliers=[0.5, 2.0], mamba_n_heads=4, mamba_d_head=16, mamba_d_ssm=64)
    assert fuse_mlps(made.model, torch.float32).count == 0


def test_a_model_function_that_rotates_otherwise_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    made = Converted("Llama")
    holder = module_of(made.model)

    def reversed_rotation(q: Tensor, k: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor]:
        return own(q, k, cos, -sin)  # type: ignore[no-any-return]

    own: Callable[..., Any] = getattr(holder, ROTARY)
    monkeypatch.setattr(holder, ROTARY, reversed_rotation)
    found = fuse_rotary(made.model, made.context, torch.float32)
    assert (found.count, getattr(holder, ROTARY)) == (0, reversed_rotation)
    assert found.reasons[0].endswith("computes something else than the kernel")


def test_rotary_embeddings_are_the_kernels_in_fused_passes_of_their_own_pack_only() -> None:
    first, other = Converted("Llama"), Converted("Llama")
    plain = other.compute()
    for _ in range(2):
        assert fuse_rotary(first.model, first.context, torch.float32).count == 1
    assert isinstance(getattr(module_of(first.model), ROTARY), FusedRotary)
    assert not isinstance(getattr(module_of(first.model), ROTARY).own, FusedRotary)
    assert first.launches() == other.launches() == Counter()
    assert all(map(torch.equal, other.compute(), plain))
    first.context.fused = True
    assert first.launches() == Counter(rotary_kernel=2 * LAYERS)


def test_ligers_function_is_for_the_other_packs(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("liger_kernel")
    first, other = Converted("Llama"), Converted("Llama")
    holder = module_of(first.model)
    for name, value in list(vars(holder).items()):  # Liger also replaces classes; this restores them
        monkeypatch.setattr(holder, name, value)
    fuse_rotary(first.model, first.context, torch.float32)
    before = getattr(holder, ROTARY)
    assert "Liger" in use_liger(other.model, torch.device("cuda"))
    after = getattr(holder, ROTARY)
    assert isinstance(after, FusedRotary)
    assert after.own.__module__.startswith("liger_kernel")
    assert not before.own.__module__.startswith("liger_kernel"), "what is put back is what it was"
    first.context.fused = True
    assert first.launches() == Counter(rotary_kernel=2 * LAYERS)


def test_gradients_beside_each_other_are_rotated_where_they_are() -> None:
    """Those of queries, keys and values, as attention's backward pass writes them."""
    made = Converted("Llama")
    assert fuse_rotary(made.model, made.context, torch.float32).count == 1
    made.context.fused = True
    joint = torch.randn(ROWS, 8, 8, device=DEVICE)
    q, k = (
        torch.randn(1, ROWS, heads, 8, device=DEVICE).transpose(1, 2).requires_grad_() for heads in (4, 2)
    )
    cos, sin = torch.randn(2, 1, ROWS, 8, device=DEVICE)
    rotated = getattr(module_of(made.model), ROTARY)(q, k, cos, sin)
    apart = [part.transpose(0, 1)[None].clone() for part in (joint[:, :4], joint[:, 4:6])]
    expected = torch.autograd.grad(rotated, (q, k), apart, retain_graph=True)
    values = joint[:, 6:].clone()
    together = [part.transpose(0, 1)[None] for part in (joint[:, :4], joint[:, 4:6])]
    found = torch.autograd.grad(rotated, (q, k), together)
    for here, there, of_joint in zip(found, expected, together, strict=True):
        assert torch.equal(here, there)
        assert here.data_ptr() == of_joint.data_ptr()
    assert torch.equal(joint[:, 6:], values)


def test_the_meta_device_decides_by_structure_and_launches_nothing() -> None:
    made = Converted("Qwen3", torch.device("meta"), head_dim=16)
    assert fuse_norms(made.model).count == 9
    assert fuse_mlps(made.model, torch.bfloat16).count == 2
    assert fuse_rotary(made.model, made.context, torch.bfloat16).count == 1
    made.context.fused = True
    assert made.launches()["rotary_kernel"] == 2 * LAYERS
