"""Modules that are called block by block: experts of one linear layer each, and checkpointed mixtures."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn

from lora_runner.base.load_model import Base, BaseSpec, load_base
from lora_runner.base.model_class import model_class
from lora_runner.config import TrialConfig
from lora_runner.layout.pack_layout import Block
from lora_runner.pack.options import PackOptions
from lora_runner.pack.pack import MicroBatch, Pack
from lora_runner.pack.seat import Seat
from tests.conftest import save_tokenizer
from tests.lora_runner.base.architectures import ARCHITECTURES

TINY = Callable[..., Path]
LENGTHS = (23, 9, 17)


class Experts(nn.Module):
    """A mixture of linear layers, each called on the tokens routed to it, as in many models."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.router = nn.Linear(width, 5, bias=False)
        self.experts = nn.ModuleList(nn.Linear(width, width) for _ in range(5))

    def forward(self, hidden: Tensor) -> Tensor:
        rows = hidden.reshape(-1, hidden.shape[-1])
        weights, chosen = self.router(rows).softmax(-1).topk(2)
        out = torch.zeros_like(rows)
        for number, expert in enumerate(self.experts):
            token, place = torch.where(chosen == number)
            out.index_add_(0, token, expert(rows[token]) * weights[token, place, None])
        return out.view_as(hidden)


def base_with_experts(folder: Path) -> Base:
    base = load_base(BaseSpec(model=str(folder), quantization="none"))
    torch.manual_seed(1)
    for layer in base.model.model.layers:
        layer.mlp = Experts(64)
    base.model.requires_grad_(False)
    return base


def share(number: int) -> MicroBatch:
    generator = torch.Generator().manual_seed(number)
    ids = torch.randint(2, 256, (LENGTHS[number],), generator=generator).tolist()
    return MicroBatch(Block.of([(ids, ids)], torch.device("cpu")), len(ids), len(ids) - 1)


def new_seat(pack: Pack, number: int, dropout: float = 0.0) -> Seat:
    config = TrialConfig(
        learning_rate=1e-2, max_steps=4, lora_r=4, lora_alpha=8, lora_dropout=dropout, seed=number
    )
    seat = pack.new_seat(config)
    generator = torch.Generator().manual_seed(number)
    for name, matrix in seat.parameters.items():
        if name.endswith("lora_B"):
            matrix.copy_(torch.randn(matrix.shape, generator=generator) / 10)
    return seat


def gradients(pack: Pack, seats: dict[int, Seat]) -> dict[int, dict[str, Tensor]]:
    for seat in seats.values():
        seat.restart_window()
    pack.micro_step({seat: share(number) for number, seat in seats.items()})
    return {n: {k: g.clone() for k, g in seat.gradients.items()} for n, seat in seats.items()}


def test_experts_of_one_layer_each_train_as_with_peft(tiny_model: TINY) -> None:
    folder = tiny_model("llama")
    pack = Pack(base_with_experts(folder), PackOptions())
    assert pack.called_by_block == ["layers.0.mlp", "layers.1.mlp"]
    assert pack.layout == "end_to_end"
    seat = new_seat(pack, 0)
    ours = gradients(pack, {0: seat})[0]
    model = base_with_experts(folder).model
    lora = LoraConfig(r=4, lora_alpha=8, target_modules="all-linear", task_type="CAUSAL_LM")
    model = get_peft_model(model, lora)
    theirs = {
        name.removeprefix("base_model.model.").removesuffix(".default.weight"): parameter
        for name, parameter in model.named_parameters()
        if parameter.requires_grad
    }
    assert set(theirs) == set(ours)
    for name, parameter in theirs.items():
        parameter.data.copy_(seat.parameters[name])
    ids = share(0).block.input_ids[None]
    model(input_ids=ids, labels=ids).loss.backward()
    for name, parameter in theirs.items():
        expected = torch.zeros_like(ours[name]) if parameter.grad is None else parameter.grad
        torch.testing.assert_close(ours[name], expected, rtol=1e-4, atol=1e-6)


def test_their_bits_are_the_same_in_any_company(tiny_model: TINY) -> None:
    pack = Pack(base_with_experts(tiny_model("llama")), PackOptions())
    seats = {n: new_seat(pack, n, dropout=0.2) for n in range(len(LENGTHS))}
    together = gradients(pack, seats)
    for number, seat in seats.items():
        alone = gradients(pack, {number: seat})[number]
        assert all(torch.equal(alone[name], together[number][name]) for name in alone)


@pytest.mark.parametrize("name", ["Phi-3.5-MoE", "Llama 4 (text)"])
def test_a_mixture_computed_again_in_the_backward_pass_gives_the_same_gradients(
    name: str, tmp_path: Path
) -> None:
    """Routers stay in evaluation mode: in training mode PhiMoE's draw random numbers."""
    torch.manual_seed(0)
    config = ARCHITECTURES[name]()
    model_class(config, name).from_config(config).save_pretrained(tmp_path)
    save_tokenizer(tmp_path)
    found = []
    for checkpointing in (False, True):
        base = load_base(BaseSpec(model=str(tmp_path)))
        pack = Pack(base, PackOptions(gradient_checkpointing=checkpointing))
        found.append(gradients(pack, {n: new_seat(pack, n) for n in range(2)}))
    for number, kept in found[0].items():
        assert all(torch.equal(grad, found[1][number][key]) for key, grad in kept.items())
