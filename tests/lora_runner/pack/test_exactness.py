"""All numbers of a trial have the same bits alone and beside any neighbours."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from benchmarks.training_steps.random_llama import SHAPES, random_base
from lora_runner.base.load_model import BaseSpec, load_base
from lora_runner.config import TrialConfig
from lora_runner.layers import onednn_matmul as onednn
from lora_runner.pack import packed_model
from lora_runner.pack.options import PackOptions
from lora_runner.pack.seat import Seat
from tests.lora_runner.devices import DEVICE, no_cuda
from tests.lora_runner.pack.drawn_packs import (
    EVALUATION,
    VOCABULARY,
    Trial,
    Watched,
    assert_same,
    gradients,
    packs,
    poison,
    sequence,
    state,
    train,
    window_of,
)

TINY = Callable[..., Path]

BASES: dict[str, dict[str, Any]] = {
    "frozen embeddings": {"train_embeddings": False},
    "frozen tied embeddings": {"train_embeddings": False, "model": {"tie_word_embeddings": True}},
    "trained embeddings": {"train_embeddings": True},
    "trained tied embeddings": {"train_embeddings": True, "model": {"tie_word_embeddings": True}},
    "trained output layer": {"train_embeddings": ("lm_head",)},
    "bfloat16": {"train_embeddings": True, "spec": {"compute_dtype": "bfloat16"}},
    "rectangular": {"train_embeddings": False, "kind": "bloom"},
}


@pytest.fixture(scope="module")
def make_pack(tiny_model: TINY) -> Callable[..., Watched]:
    """`make_pack(kind, **options)`: a pack of its own base, one of `BASES`."""

    def make(kind: str, **options: Any) -> Watched:
        recipe = BASES[kind]
        folder = tiny_model(recipe.get("kind", "llama"), vocab_size=VOCABULARY, **recipe.get("model", {}))
        base = load_base(BaseSpec(model=str(folder), **recipe.get("spec", {})))
        return Watched(base, PackOptions(train_embeddings=recipe["train_embeddings"], **options))

    return make


@pytest.fixture(scope="module")
def all_packs(make_pack: Callable[..., Watched]) -> dict[str, Watched]:
    # Dequantized once, which changes no number, as a test below shows.
    return {kind: make_pack(kind, resident_weights=True) for kind in BASES}


@pytest.fixture(scope="module")
def usual(all_packs: dict[str, Watched]) -> Watched:
    return all_packs["trained embeddings"]


# --- tests --------------------------------------------------------------------------------------------


@pytest.mark.gpu
@pytest.mark.slow
@pytest.mark.parametrize("kind", list(BASES))
@settings(max_examples=7)
@given(drawn=packs())
def test_every_trial_is_bit_equal_to_itself_alone(
    all_packs: dict[str, Watched], kind: str, drawn: list[Trial]
) -> None:
    """Neighbours of any rank, length, learning rate and dropout, that join late, pause, leave or turn NaN."""
    pack = all_packs[kind]
    for trial, packed in zip(drawn, train(pack, drawn), strict=True):
        alone = train(pack, [replace(trial, rounds_off=frozenset())])[0]
        assert_same(packed, alone, f"trial {trial.config.seed} of {len(drawn)}")


@pytest.mark.gpu
@no_cuda
@pytest.mark.parametrize("resident", [False, True], ids=["dequantized_weight", "resident"])
@pytest.mark.parametrize("shape", ["llama-3.2-1b", "llama-3.1-8b"])
def test_every_trial_is_bit_equal_to_itself_alone_at_sizes_of_real_models(shape: str, resident: bool) -> None:
    """A GPU chooses kernels by sizes that tiny models never reach."""
    base = random_base(replace(SHAPES[shape], layers=2), DEVICE, torch.bfloat16)
    pack = Watched(base, PackOptions(resident_weights=resident))
    drawn = [
        replace(changed(seed=seed, lora_r=rank, lora_dropout=dropout, max_steps=3), lengths=lengths)
        for seed, rank, dropout, lengths in (
            (1, 16, 0.0, ((128, 61, 90, 33), (17, 40, 128, 128))),
            (2, 16, 0.1, ((512, 300, 77, 431),)),
            (3, 8, 0.0, ((16,), (2048,))),
            (4, 64, 0.0, ((7, 9, 130),)),
            (5, 16, 0.0, ((1000, 24),)),
        )
    ]
    for trial, packed in zip(drawn, train(pack, drawn), strict=True):
        assert_same(packed, train(pack, [trial])[0], f"trial {trial.config.seed} of {len(drawn)}")


@pytest.mark.skipif(not onednn.is_available(), reason="this build of torch has no oneDNN")
@pytest.mark.parametrize("kind", ["frozen tied embeddings", "trained embeddings"])
def test_every_trial_is_bit_equal_to_itself_alone_where_onednn_multiplies(
    all_packs: dict[str, Watched], monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setattr(onednn, "WIDE", 0)
    monkeypatch.setattr(onednn, "is_faster", lambda: True)
    short = replace(changed(max_steps=3), lengths=((11, 4), (16, 3)))
    longer = replace(changed(seed=2, lora_r=16, max_steps=3), lengths=((47,),))
    for trial, packed in zip((short, longer), train(all_packs[kind], [short, longer]), strict=True):
        alone = train(all_packs[kind], [trial])[0]
        assert_same(packed, alone, f"trial {trial.config.seed}")


def test_a_longer_neighbour_changes_no_width_and_no_mask(all_packs: dict[str, Watched]) -> None:
    pack = all_packs["rectangular"]
    assert pack.layout == "rectangular"
    config = replace(USUAL.config, per_device_train_batch_size=2, lora_dropout=0.3)
    short = replace(USUAL, config=config, lengths=((5, 9),))
    long = replace(short, config=replace(config, seed=2), lengths=((40, 3),))
    packed, alone = train(pack, [short, long]), train(pack, [short])
    assert_same(packed[0], alone[0], "the short one")


@pytest.mark.gpu
@pytest.mark.slow
@settings(max_examples=6)
@given(drawn=packs(), rows=st.sampled_from([1, 5, 12]))
def test_logits_that_are_cut_are_cut_by_the_trial_alone(
    usual: Watched, drawn: list[Trial], rows: int
) -> None:
    """As with a large vocabulary: the logits of a micro-batch are computed in several chunks."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(packed_model, "MAX_LOGITS", rows * VOCABULARY)
        for trial, packed in zip(drawn, train(usual, drawn), strict=True):
            alone = train(usual, [replace(trial, rounds_off=frozenset())])[0]
            assert_same(packed, alone, f"trial {trial.config.seed} of {len(drawn)}")


def test_where_rows_need_alignment_each_block_gets_its_own_chunks(
    usual: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on CUDA, where a sum over an odd vocabulary depends on how its memory is aligned."""
    trials = [USUAL, changed(seed=2)]
    expected, blocks = train(usual, trials), list[int]()
    logits = usual.head_logits

    def counted(hidden: Tensor, rows: Any) -> Tensor:
        blocks.append(len(rows.blocks))
        return logits(hidden, rows)

    monkeypatch.setattr(usual, "head_logits", counted)
    train(usual, trials)
    assert max(blocks) == 2
    blocks.clear()
    monkeypatch.setattr(packed_model, "can_share_chunk", lambda vocabulary, device: False)
    for ours, theirs in zip(train(usual, trials), expected, strict=True):
        assert_same(ours, theirs, "in chunks")
    assert set(blocks) == {1}


@pytest.mark.gpu
@pytest.mark.slow
@settings(max_examples=4)
@given(drawn=packs())
def test_checkpointing_and_resident_weights_change_no_bit(
    checkpointed_and_not: list[Watched], drawn: list[Trial]
) -> None:
    """With dropout, whose masks must be the same when a layer is recomputed."""
    drawn = [replace(t, config=replace(t.config, lora_dropout=t.config.lora_dropout or 0.2)) for t in drawn]
    plain, *others = [train(pack, drawn) for pack in checkpointed_and_not]
    for other in others:
        for trial, a, b in zip(drawn, plain, other, strict=True):
            assert_same(a, b, f"trial {trial.config.seed} of {len(drawn)}")


@pytest.fixture(scope="module")
def checkpointed_and_not(make_pack: Callable[..., Watched]) -> list[Watched]:
    return [
        make_pack("trained embeddings", **options)
        for options in (
            {},
            {"gradient_checkpointing": True},
            {"resident_weights": True},
        )
    ]


USUAL = Trial(
    config=TrialConfig(
        learning_rate=5e-3,
        embedding_learning_rate=5e-4,
        max_steps=9,
        weight_decay=0.1,
        lora_r=8,
        lora_dropout=0.1,
        seed=1,
    ),
    lengths=((9, 4), (13, 2)),
    kept_labels=0.7,
    rounds_off=frozenset(),
    leaves_after=9,
    poisoned_before=None,
)


def changed(trial: Trial = USUAL, **config: Any) -> Trial:
    return replace(trial, config=replace(trial.config, **config))


def turn(pack: Watched, trials: dict[Seat, Trial]) -> Collection[Seat]:
    """One pass in which all of `trials` take part; the seats that made an update."""
    return pack.train_step(
        {
            seat: trial.window(seat.step)[seat.micro_step % trial.config.gradient_accumulation_steps]
            for seat, trial in trials.items()
        }
    )


@pytest.mark.gpu
@pytest.mark.parametrize("ill", [False, True], ids=["healthy neighbours", "a neighbour full of NaN"])
def test_a_seat_without_a_turn_does_not_move(usual: Watched, ill: bool) -> None:
    """Weights, moments, counters and the gradient of its open window; a learning rate of 0 would not do."""
    resting = changed(gradient_accumulation_steps=3, lora_r=6)
    neighbours = [changed(seed=2), changed(seed=3, lora_r=32, gradient_accumulation_steps=2)]
    seat, *others = (usual.new_seat(trial.config) for trial in (resting, *neighbours))
    for _ in range(5):  # one update, and two thirds of the next window
        turn(usual, {seat: resting, **dict(zip(others, neighbours, strict=True))})
    if ill:
        poison(others[1])
    before = {**state(seat), **{f"gradient.{n}": g for n, g in gradients(seat).items()}}
    counters = (seat.step, seat.micro_step, seat.num_tokens, seat.learning_rate)
    assert any(grad.any() for name, grad in before.items() if name.startswith("gradient."))
    for _ in range(4):
        stats = turn(usual, dict(zip(others, neighbours, strict=True)))
        assert seat not in stats
    usual.evaluate([None, *others, seat], EVALUATION)
    after = {**state(seat), **{f"gradient.{n}": g for n, g in gradients(seat).items()}}
    assert (seat.step, seat.micro_step, seat.num_tokens, seat.learning_rate) == counters
    assert [name for name in before if not torch.equal(before[name], after[name])] == []


def test_a_full_window_of_one_seat_leaves_the_open_window_of_another(usual: Watched) -> None:
    """Seats that took part in a pass but have not filled their window."""
    steady, slow = changed(seed=2), changed(gradient_accumulation_steps=3)
    seats = {usual.new_seat(steady.config): steady, usual.new_seat(slow.config): slow}
    open_seat = list(seats)[1]
    start = state(open_seat)
    for count in (1, 2):
        stats = turn(usual, seats)
        assert list(stats) == [next(iter(seats))]
        assert (open_seat.step, open_seat.micro_step) == (0, count)
        assert [n for n, t in state(open_seat).items() if not torch.equal(t, start[n])] == []
    assert open_seat in turn(usual, seats)
    assert any(not torch.equal(t, start[n]) for n, t in state(open_seat).items())
    assert not any(grad.any() for grad in gradients(open_seat).values())


def test_loss_is_the_sum_over_the_tokens_of_the_whole_window(usual: Watched) -> None:
    """Two micro-batches of different token counts equal one batch of both, not the mean of two means."""
    config = replace(USUAL.config, lora_dropout=0.0, max_grad_norm=0.0)
    generator = torch.Generator().manual_seed(3)
    sequences = [sequence(length, 1.0, generator) for length in (17, 14, 12, 3, 2)]
    (whole,), halves = window_of([sequences]), window_of([sequences[:2], sequences[2:]])
    assert [half.block.num_targets for half in halves] == [29, 14]
    seat = usual.new_seat(config)
    twin = usual.new_seat(replace(config, gradient_accumulation_steps=2))
    # B is 0 before the first update: the seat's loss is still the base's.
    means = [usual.evaluate([None], [half.block])[0] for half in halves]
    expected = (29 * means[0] + 14 * means[1]) / 43
    assert expected != pytest.approx(sum(means) / 2, rel=1e-4)
    usual.train_step({seat: whole})
    at_once = usual.seen[seat]
    for half in halves:
        usual.train_step({twin: half})
    assert seat.last_update is not None
    assert twin.last_update is not None
    one, two = seat.last_update.read(), twin.last_update.read()
    assert [one.loss, two.loss] == pytest.approx([expected, expected], rel=1e-6)
    assert two.grad_norm == pytest.approx(one.grad_norm, rel=1e-6)
    assert one.num_tokens == two.num_tokens == 48
    for name, grad in usual.seen[twin].items():
        scale = float(at_once[name].abs().max())
        torch.testing.assert_close(grad, at_once[name], rtol=0, atol=1e-5 * scale, msg=name)


@pytest.mark.slow
def test_samples_are_those_of_the_trial_alone(usual: Watched) -> None:
    """Greedy continuations of prompts of different lengths, beside other trials and the base."""
    drawn = [changed(seed=1, learning_rate=0.05), changed(seed=2, lora_r=32), changed(seed=3, lora_r=6)]
    seats = {usual.new_seat(trial.config): trial for trial in drawn}
    for _ in range(3):
        turn(usual, seats)
    prompts = [[5, 6, 7, 8, 9, 10, 11], [20, 30]]
    together = usual.generate([None, *seats], prompts, 5)
    assert together == [usual.generate([seat], prompts, 5)[0] for seat in (None, *seats)]
    assert together[0] != together[1]
