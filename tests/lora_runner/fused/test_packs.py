"""Packs on the fused path: each trial has the same bits alone and in any pack, near the general path's."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lora_runner.base.load_model import BaseSpec, load_base
from lora_runner.fused import linear_group, norms
from lora_runner.fused.compute_path import Machine, NotFusedError
from lora_runner.fused.replaced import FusedForward
from lora_runner.fused.siblings import find_siblings
from lora_runner.layers import linear as packed_linear
from lora_runner.layers.linear import PackContext, PackedLinear, RowOwners
from lora_runner.layout.pack_layout import Block
from lora_runner.pack.options import PackOptions
from tests.lora_runner.devices import DEVICE
from tests.lora_runner.pack.drawn_packs import Watched, assert_same, train
from tests.lora_runner.pack.test_exactness import changed

FUSED = Machine(True, "a test says so")
GENERAL = Machine(False, "a test says so")
VOCABULARY = 259


@pytest.fixture(scope="module")
def make_pack(tiny_model: Callable[..., Path]) -> Callable[..., Watched]:
    """`make_pack(machine, **options)`: a pack of a base of its own, of one layer."""

    def make(machine: Machine, *, tied: bool = False, head_dim: int = 16, **options: Any) -> Watched:
        folder = tiny_model(
            "llama",
            vocab_size=VOCABULARY,
            num_hidden_layers=1,
            tie_word_embeddings=tied,
            head_dim=head_dim,
        )
        base = load_base(BaseSpec(model=str(folder)))
        return Watched(base, PackOptions(resident_weights=True, **options), machine)

    return make


@pytest.fixture(scope="module")
def fused(make_pack: Callable[..., Watched]) -> Watched:
    pack = make_pack(FUSED, tied=True, train_embeddings=True)
    assert pack.path.is_fused, pack.path.reason
    return pack


TRIALS = (
    replace(changed(seed=1, lora_r=16, lora_dropout=0.3, max_steps=1), lengths=((3, 2),)),
    replace(changed(seed=2, lora_r=8, max_steps=1), lengths=((5,),)),
    replace(changed(seed=3, lora_r=24, lora_dropout=0.1, max_steps=1), lengths=((1, 4),)),
)


def test_every_trial_is_bit_equal_to_itself_alone(fused: Watched) -> None:
    for trial, packed in zip(TRIALS, train(fused, TRIALS), strict=True):
        assert_same(packed, train(fused, [trial])[0], f"trial {trial.config.seed}")


def test_a_neighbour_with_nan_changes_nothing(fused: Watched) -> None:
    first, _, last = TRIALS
    poisoned = replace(TRIALS[1], poisoned_before=0)
    healthy = train(fused, [first, TRIALS[1], last])
    for ours, theirs in zip(train(fused, [first, poisoned, last])[::2], healthy[::2], strict=True):
        assert_same(ours, theirs, "a neighbour")


def test_the_fused_path_is_near_the_general_one(fused: Watched, make_pack: Callable[..., Watched]) -> None:
    general = make_pack(GENERAL, tied=True, train_embeddings=True)
    reason, others = general.path.describe()
    assert reason == "general: a test says so"
    assert others.startswith("norms, activations and rotary embeddings: ")
    for ours, theirs in zip(train(fused, TRIALS), train(general, TRIALS), strict=True):
        first, other = ours.steps[0], theirs.steps[0]
        assert first["loss"] == pytest.approx(other["loss"], rel=1e-6)
        for name in first:
            if name.startswith("gradient."):
                assert (first[name] - other[name]).abs().max() <= 1e-5 * other[name].abs().max(), name
        assert ours.evaluation == pytest.approx(theirs.evaluation, rel=1e-3)


def test_generated_texts_are_those_of_whole_texts(fused: Watched) -> None:
    prompts = [[5, 9, 11], [3]]
    assert not fused.generator.uncached_reason
    seats = [fused.new_seat(TRIALS[0].config), None]
    cached = fused.generate(seats, prompts, 2, stop_token_ids=())
    fused.generator._reason = "a test says so"
    try:
        assert fused.generate(seats, prompts, 2, stop_token_ids=()) == cached
    finally:
        fused.generator._reason = None


def refuse(error: Exception) -> Callable[..., Any]:
    def product(*_: Any) -> Any:
        raise error

    return product


def doubled_above_three_rows(x: Tensor, *rest: Any) -> Tensor:
    """A kernel of norms that is wrong on more rows than it is first tried on."""
    return OWN_NORM(x, *rest) * (1 if x.numel() // x.shape[-1] <= 3 else 2)


OWN_NORM = norms.rms_norm


@pytest.mark.parametrize(
    ("where", "kernel", "head_dim", "reason"),
    [
        (norms, doubled_above_three_rows, 16, "fused logits differ from the plain model's by "),
        (
            norms,
            refuse(OSError("no compiler\nat all")),
            16,
            "its kernels cannot run here: OSError: no compiler",
        ),
        (linear_group, refuse(OSError("no")), 16, "its kernels cannot run here: OSError: no"),
        (None, None, 320, "its head size is 320, at most 256 is possible"),
    ],
)
def test_a_refused_model_computes_by_none_of_the_kernels(
    make_pack: Callable[..., Watched],
    monkeypatch: pytest.MonkeyPatch,
    where: Any,
    kernel: Any,
    head_dim: int,
    reason: str,
) -> None:
    written = list[Tensor]()
    own = packed_linear.dequantized_weight
    monkeypatch.setattr(
        packed_linear, "dequantized_weight", lambda base: written.append(own(base)) or written[-1]
    )
    losses, counts = [], []
    for machine in (GENERAL, FUSED):
        if where is not None:
            name = "rms_norm" if where is norms else "frozen_product"
            monkeypatch.setattr(where, name, kernel)
        pack = make_pack(machine, head_dim=head_dim, train_embeddings=True)
        pack.evaluate([None], [SMALL])  # resident weights are made again
        written.clear()
        for linear in pack.linears:
            linear.keeps_resident, linear._resident = False, None
        losses.append(pack.evaluate([None], [SMALL]))
        counts.append(sum(weight.numel() for weight in written))
    assert not pack.path.is_fused
    assert pack.path.reason.startswith(reason)
    assert losses[0] == losses[1]
    assert counts[0] == counts[1] > 0
    assert not any(isinstance(vars(each).get("forward"), FusedForward) for each in pack.model.modules())
    assert all(linear.group is None for linear in pack.linears)


SMALL = Block.of([([1, 2, 3, 4, 5], [1, 2, 3, 4, 5])], DEVICE)


@pytest.mark.parametrize("where", [norms, linear_group])
@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("CUDA out of memory."), RuntimeError("CUDA error: illegal access")]
)
def test_trouble_of_the_device_is_no_reason_for_another_path(
    make_pack: Callable[..., Watched], monkeypatch: pytest.MonkeyPatch, where: Any, error: Exception
) -> None:
    monkeypatch.setattr(where, "rms_norm" if where is norms else "frozen_product", refuse(error))
    with pytest.raises(type(error), match=str(error)[:11]):
        make_pack(FUSED)


def test_an_input_given_by_keyword_is_told() -> None:
    context = PackContext(rows=RowOwners([None], [3]))
    linear = PackedLinear(nn.Linear(16, 16), "first", None, context, resident=False)
    with pytest.raises(NotFusedError, match="first is given its input by keyword"):
        find_siblings(nn.ModuleList([linear]), context, lambda: linear(x=torch.zeros(3, 16)))
