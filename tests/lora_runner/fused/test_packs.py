"""Packs on the fused path: each trial has the same bits alone and in any pack, near the general path's."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lora_runner.base.load_model import BaseSpec, load_base
from lora_runner.fused.compute_path import Machine
from lora_runner.pack.options import PackOptions
from tests.lora_runner.pack.drawn_packs import Watched, assert_same, train
from tests.lora_runner.pack.test_exactness import changed

FUSED = Machine(True, "a test says so")
GENERAL = Machine(False, "a test says so")
VOCABULARY = 259


@pytest.fixture(scope="module")
def make_pack(tiny_model: Callable[..., Path]) -> Callable[..., Watched]:
    """`make_pack(machine, **options)`: a pack of a base of its own, of one layer."""

    def make(machine: Machine, *, tied: bool = False, **options: Any) -> Watched:
        folder = tiny_model("llama", vocab_size=VOCABULARY, num_hidden_layers=1, tie_word_embeddings=tied)
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
