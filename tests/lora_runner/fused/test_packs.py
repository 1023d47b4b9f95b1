"""Packs on the fused path: each trial has the same bits alone and in any pack, near the general path's."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings

from lora_runner.base.load_model import BaseSpec, load_base
from lora_runner.fused.compute_path import Machine
from lora_runner.pack.options import PackOptions
from tests.lora_runner.pack.drawn_packs import Trial, Watched, assert_same, packs, train
from tests.lora_runner.pack.test_exactness import changed

FUSED = Machine(True, "a test says so")
GENERAL = Machine(False, "a test says so")
VOCABULARY = 259


@pytest.fixture(scope="module")
def make_pack(tiny_model: Callable[..., Path]) -> Callable[..., Watched]:
    """`make_pack(machine, kind, **options)`: a pack of a base of its own."""

    def make(machine: Machine, kind: str = "llama", **options: Any) -> Watched:
        base = load_base(BaseSpec(model=str(tiny_model(kind, vocab_size=VOCABULARY))))
        return Watched(base, PackOptions(resident_weights=True, **options), machine)

    return make


@pytest.fixture(scope="module")
def fused(make_pack: Callable[..., Watched]) -> Watched:
    pack = make_pack(FUSED)
    assert pack.path.is_fused, pack.path.reason
    return pack


TRIALS = (
    replace(changed(seed=1, lora_r=16, lora_dropout=0.3, max_steps=2), lengths=((11, 4), (16, 3))),
    replace(changed(seed=2, lora_r=8, max_steps=2), lengths=((47,),)),
    replace(changed(seed=3, lora_r=24, lora_dropout=0.1, max_steps=2), lengths=((1, 70),)),
)


def test_every_trial_is_bit_equal_to_itself_alone(fused: Watched) -> None:
    for trial, packed in zip(TRIALS, train(fused, TRIALS), strict=True):
        assert_same(packed, train(fused, [trial])[0], f"trial {trial.config.seed}")


def test_the_fused_path_is_near_the_general_one(fused: Watched, make_pack: Callable[..., Watched]) -> None:
    general = make_pack(GENERAL)
    assert general.path.describe() == ["general: a test says so"]
    for ours, theirs in zip(train(fused, TRIALS), train(general, TRIALS), strict=True):
        first, other = ours.steps[0], theirs.steps[0]
        assert first["loss"] == pytest.approx(other["loss"], rel=1e-6)
        for name in first:
            if name.startswith("gradient."):
                assert (first[name] - other[name]).abs().max() <= 1e-5 * other[name].abs().max(), name
        assert ours.evaluation == pytest.approx(theirs.evaluation, rel=1e-3)


@pytest.mark.slow
@settings(max_examples=3)
@given(drawn=packs())
def test_drawn_trials_are_bit_equal_to_themselves_alone(fused: Watched, drawn: list[Trial]) -> None:
    for trial, packed in zip(drawn, train(fused, drawn), strict=True):
        alone = train(fused, [replace(trial, rounds_off=frozenset())])[0]
        assert_same(packed, alone, f"trial {trial.config.seed} of {len(drawn)}")
