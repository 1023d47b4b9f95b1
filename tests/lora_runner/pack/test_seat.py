"""A seat's update against torch's optimizer, and the state that belongs to one seat."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from peft import LoraConfig, get_peft_model

from benchmarks.harness.operation_counter import OperationCounter
from lora_runner.config import TrialConfig
from lora_runner.errors import ModelError
from lora_runner.layers.linear import PackContext, PackedLinear, RowOwners
from lora_runner.pack.pack import MicroBatch, Pack
from lora_runner.pack.seat import EMBEDDINGS, LORA, Seat, StepStats
from tests.lora_runner.plain_models import block_of, plain_nf4

CONFIG = TrialConfig(
    learning_rate=1e-2,
    embedding_learning_rate=1e-3,
    lr_scheduler_type="linear",
    warmup_steps=2,
    max_steps=6,
    weight_decay=0.1,
    max_grad_norm=0.5,
    adam_beta1=0.8,
    adam_beta2=0.95,
    adam_epsilon=1e-6,
    lora_r=4,
    lora_alpha=8,
    seed=5,
)


@pytest.fixture(scope="module")
def pack(new_pack: Callable[..., Pack]) -> Pack:
    return new_pack()


def put_gradients(seat: Seat, scale: float = 1.0, seed: int = 0) -> dict[str, torch.Tensor]:
    """Fill every gradient by hand and count a micro-batch, as a backward pass would."""
    generator = torch.Generator().manual_seed(seed)
    gradients = {}
    for name, parameter in seat.parameters.items():
        gradients[name] = scale * torch.randn(parameter.shape, generator=generator)
        seat.gradients[name].add_(gradients[name])
    seat.add_micro_batch(torch.tensor(2.5), 40)
    return gradients


def update(pack: Pack, seat: Seat) -> StepStats:
    return pack.update([seat])[seat].read()


def copies(seat: Seat) -> dict[str, torch.Tensor]:
    return {name: parameter.detach().clone() for name, parameter in seat.parameters.items()}


@pytest.mark.parametrize("clip", [0.5, 1e6, 0.0], ids=["clipped", "below-the-threshold", "off"])
def test_updates_are_those_of_adamw_with_two_groups(pack: Pack, clip: float) -> None:
    config = replace(CONFIG, max_grad_norm=clip)
    seat = pack.new_seat(config)
    plain = {name: torch.nn.Parameter(value) for name, value in copies(seat).items()}
    optimizer = torch.optim.AdamW(
        [
            {"params": [p for n, p in plain.items() if ".lora_" in n], "lr": config.learning_rate},
            {
                "params": [p for n, p in plain.items() if ".lora_" not in n],
                "lr": config.embedding_learning_rate,
            },
        ],
        betas=(config.adam_beta1, config.adam_beta2),
        eps=config.adam_epsilon,
        weight_decay=config.weight_decay,
    )
    factors = [0.0, 0.5, 1.0, 0.75, 0.5, 0.25]
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: [*factors, 0.0][step])
    for step, factor in enumerate(factors):
        for name, gradient in put_gradients(seat, seed=step).items():
            plain[name].grad = gradient
        norm = torch.nn.utils.clip_grad_norm_(plain.values(), clip if clip else math.inf)
        optimizer.step()
        scheduler.step()
        assert seat.learning_rate == pytest.approx(config.learning_rate * factor)
        stats = update(pack, seat)
        assert seat.last_update is not None
        assert stats == seat.last_update.read()
        assert (stats.step, stats.loss, stats.num_tokens) == (step + 1, 2.5, 40)
        assert stats.learning_rate == pytest.approx(config.learning_rate * factor)
        assert stats.grad_norm == pytest.approx(float(norm), rel=1e-5)
        for name, value in plain.items():
            torch.testing.assert_close(seat.parameters[name].detach(), value.detach(), rtol=1e-5, atol=1e-6)
    assert seat.finished
    assert seat.num_tokens == 6 * 40


def test_the_embedding_group_has_its_own_rate(pack: Pack) -> None:
    def moved(config: TrialConfig) -> tuple[float, float]:
        seat = pack.new_seat(replace(config, lr_scheduler_type="constant", weight_decay=0.0))
        before = copies(seat)
        put_gradients(seat)
        update(pack, seat)
        change = {name: float((p.detach() - before[name]).abs().max()) for name, p in seat.parameters.items()}
        lora = max(value for name, value in change.items() if ".lora_" in name)
        return lora, max(value for name, value in change.items() if ".lora_" not in name)

    # Adam's first step moves every weight by its rate.
    assert moved(CONFIG) == pytest.approx((1e-2, 1e-3), rel=1e-2)
    assert moved(replace(CONFIG, embedding_learning_rate=5e-2)) == pytest.approx((1e-2, 5e-2), rel=1e-2)
    assert moved(replace(CONFIG, embedding_learning_rate=0.0))[1] == 0.0


def test_a_seat_starts_as_the_base(pack: Pack) -> None:
    seat = pack.new_seat(CONFIG)
    assert {kind for kind, _ in seat.segments} == {LORA, EMBEDDINGS}
    for module in pack.linears:
        a, b = (seat.parameters[f"{module.name}.lora_{side}"] for side in "AB")
        assert a.dtype == b.dtype == torch.float32
        assert not b.any(), module.name
        bound = 1 / math.sqrt(a.shape[1])
        assert 0.9 * bound < float(a.detach().abs().max()) <= bound
    for module in pack.saved:
        assert torch.equal(seat.saved[module.name], module.weight)
        assert seat.saved[module.name].data_ptr() != module.weight.data_ptr()


def test_the_start_depends_on_the_seed_alone(pack: Pack) -> None:
    state = torch.get_rng_state()
    first = copies(pack.new_seat(CONFIG))
    assert torch.equal(torch.get_rng_state(), state)  # torch's global generator is not used
    torch.rand(7)
    again, other = copies(pack.new_seat(CONFIG)), copies(pack.new_seat(replace(CONFIG, seed=6)))
    assert all(torch.equal(first[name], again[name]) for name in first)
    name = next(name for name in first if name.endswith("lora_A"))
    assert not torch.equal(first[name], other[name])
    layers = [value for key, value in first.items() if key.endswith("q_proj.lora_A")]
    assert not torch.equal(layers[0], layers[1])


def test_a_large_seat_drawn_in_threads_has_the_same_bits(pack: Pack, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = copies(pack.new_seat(CONFIG))
    monkeypatch.setattr("lora_runner.pack.seat.MANY_ELEMENTS", 0)
    found = copies(pack.new_seat(CONFIG))
    assert all(torch.equal(found[name], value) for name, value in expected.items())


def test_gradients_land_in_the_flat_buffers(pack: Pack) -> None:
    seat = pack.new_seat(CONFIG)
    ids = torch.arange(2, 26).reshape(2, 12)
    block = block_of(ids, ids)
    pack.micro_step({seat: MicroBatch(block, 24, 22)})
    assert seat.num_trained == sum(p.numel() for p in seat.parameters.values())
    for segment in seat.segments.values():
        allocator = pack._allocators[LORA, pack.base.device].buffers
        assert segment.flat_gradients.any()
        for name in segment.shapes:
            for buffer, views in (
                (allocator.parameters, segment.parameters),
                (allocator.gradients, segment.gradients),
            ):
                offset = views[name].data_ptr() - buffer.data_ptr()
                assert segment.start * 4 <= offset < segment.stop * 4


def test_a_seat_keeps_its_state_when_the_buffers_grow_and_others_leave(pack: Pack) -> None:
    """Seats of other ranks come and go; only slices that they have freed are reused."""
    first = pack.new_seat(CONFIG)
    put_gradients(first)
    kept = {name: value.clone() for name, value in first.gradients.items()}
    weights = copies(first)
    others = [pack.new_seat(replace(CONFIG, lora_r=r)) for r in (64, 6, 32)]
    for other in others:
        put_gradients(other, seed=1)
    del other, others[1]
    newer = pack.new_seat(replace(CONFIG, lora_r=5))
    assert not any(gradient.any() for gradient in newer.gradients.values())
    put_gradients(newer, seed=2)
    for name in weights:
        assert torch.equal(first.parameters[name], weights[name])
        assert torch.equal(first.gradients[name], kept[name])
    segments = [s for seat in (first, newer, *others) for s in seat.segments.values()]
    slices = sorted((s.start, s.stop) for s in segments)
    assert all(left[1] <= right[0] for left, right in pairwise(slices))
    size = pack._allocators[LORA, pack.base.device].size
    del newer, others, segments
    pack.new_seat(replace(CONFIG, lora_r=64))
    assert pack._allocators[LORA, pack.base.device].size == size  # the freed slice is reused


@pytest.mark.parametrize("targets", [("q_proj",), ("gate_proj", "v_proj"), (r"model.layers.0.mlp.up_proj",)])
def test_gradients_come_through_the_layers_that_are_left_alone(
    new_pack: Callable[..., Pack], targets: tuple[str, ...]
) -> None:
    """Against transformers + peft: gradients pass through a frozen 4-bit layer above a target."""
    pack = new_pack(target_modules=targets)
    seat = pack.new_seat(CONFIG)
    for name, parameter in seat.parameters.items():
        if name.endswith("lora_B"):
            parameter.normal_(generator=torch.Generator().manual_seed(1))
    ids = torch.arange(2, 26).reshape(2, 12)
    block = block_of(ids, ids)
    pack.micro_step({seat: MicroBatch(block, 24, 22)})

    plain = plain_nf4(pack.base.spec.model)
    peft = get_peft_model(
        plain,
        LoraConfig(
            r=4, lora_alpha=8, target_modules=list(targets), modules_to_save=["embed_tokens", "lm_head"]
        ),
    ).train()
    trained = {
        name.removeprefix("base_model.model.")
        .replace(".default.weight", "")
        .replace(".modules_to_save", ".weight"): p
        for name, p in peft.named_parameters()
        if p.requires_grad
    }
    assert trained.keys() == seat.parameters.keys()
    with torch.no_grad():
        for name, parameter in trained.items():
            parameter.copy_(seat.parameters[name])
    logits = peft(input_ids=ids).logits[:, :-1].flatten(0, 1)
    torch.nn.functional.cross_entropy(logits, ids[:, 1:].flatten()).backward()
    for name, parameter in trained.items():
        assert parameter.grad is not None
        scale = float(parameter.grad.abs().max())
        torch.testing.assert_close(seat.gradients[name], parameter.grad, rtol=1e-4, atol=1e-5 * scale)


def test_a_frozen_layer_may_see_any_rows_and_a_trained_one_only_those_of_seats() -> None:
    """A selection of tokens without known owners: the blocks of the pass have other sizes."""
    context = PackContext(rows=RowOwners((None, None), (24, 24)))
    frozen, trained = (
        PackedLinear(torch.nn.Linear(8, 4), "experts.0.up_proj", index, context, resident=False)
        for index in (None, 0)
    )
    rows = torch.randn(5, 8)
    torch.testing.assert_close(frozen(rows), torch.nn.functional.linear(rows, frozen.weight, frozen.bias))
    with pytest.raises(ModelError, match=r"'experts.0.up_proj' was called on 5 rows of 48, .*target_modules"):
        trained(rows)


def test_a_window_cut_short_is_computed_again(pack: Pack) -> None:
    config = replace(CONFIG, gradient_accumulation_steps=3, warmup_steps=0, lora_dropout=0.2)
    ids = [torch.arange(2 + i, 26 + i).reshape(2, 12) for i in range(3)]
    shares = [MicroBatch(block_of(i, i), 24, 66) for i in ids]
    straight, restarted = pack.new_seat(config), pack.new_seat(config)
    for share in shares:
        pack.micro_step({straight: share})
    for share in shares[:2]:
        pack.micro_step({restarted: share})
    assert (restarted.micro_step, restarted.window_is_full) == (2, False)
    restarted.restart_window()
    assert restarted.micro_step == 0
    for share in shares:
        pack.micro_step({restarted: share})
    assert restarted.window_is_full
    assert update(pack, restarted) == update(pack, straight)
    assert all(torch.equal(restarted.parameters[n], p) for n, p in straight.parameters.items())


def test_every_micro_batch_has_dropout_masks_of_its_own(pack: Pack) -> None:
    config = replace(CONFIG, lora_dropout=0.5, gradient_accumulation_steps=2, learning_rate=1e-30)
    seat = pack.new_seat(replace(config, embedding_learning_rate=0.0, weight_decay=0.0))
    ids = torch.arange(2, 26).reshape(2, 12)
    share = MicroBatch(block_of(ids, ids), 24, 44)
    name = next(name for name in seat.parameters if name.endswith("lora_B"))
    seen = []
    for _ in range(4):  # two windows on the same batch; the weights do not move
        before = seat.gradients[name].clone()
        pack.micro_step({seat: share})
        seen.append(seat.gradients[name] - before)
        if seat.window_is_full:
            update(pack, seat)
    for i, gradient in enumerate(seen):
        assert all(not torch.allclose(gradient, other) for other in seen[:i])


def test_nothing_of_a_nan_window_stays_in_the_next(pack: Pack) -> None:
    seat, clean = pack.new_seat(CONFIG), pack.new_seat(CONFIG)
    put_gradients(seat, scale=math.nan)
    seat.restart_window()
    for each in (seat, clean):
        put_gradients(each)
    assert update(pack, seat) == update(pack, clean)


def test_a_seat_asks_for_all_its_memory_when_it_is_made(pack: Pack) -> None:
    """Weights, gradients and both moments: a seat that does not fit fails before it trains."""
    seat = pack.new_seat(CONFIG)
    allocator = pack._allocators[LORA, pack.base.device]
    held = sum(segment.size for segment in seat.segments.values())
    assert seat.num_trained <= held <= allocator.size
    before = [buffer.data_ptr() for _, buffer in allocator.buffers.present()]
    put_gradients(seat)
    update(pack, seat)
    assert [buffer.data_ptr() for _, buffer in allocator.buffers.present()] == before


def test_embeddings_may_keep_their_moments_in_8_bits(new_pack: Callable[..., Pack]) -> None:
    """Only the embeddings' moments differ; LoRA is updated exactly as before."""
    ids = torch.arange(2, 26).reshape(2, 12)
    share = MicroBatch(block_of(ids, ids), 24, 22)
    config = replace(CONFIG, warmup_steps=0)
    trained = {}
    for bits in (32, 8):
        pack = new_pack(embedding_optimizer_bits=bits)
        seat = pack.new_seat(config)
        start = copies(seat)
        norms = [pack.train_step({seat: share})[seat].read().grad_norm for _ in range(3)]
        trained[bits] = copies(seat), norms
    (exact, norms), (short, norms_8bit) = trained[32], trained[8]
    assert norms_8bit[0] == pytest.approx(norms[0], rel=1e-6)
    assert norms_8bit == pytest.approx(norms, rel=2e-2)
    for name, weight in exact.items():
        moved = float((weight - start[name]).norm())
        assert float((short[name] - weight).norm()) < (0.05 if name.endswith(".weight") else 0.02) * moved
    assert any(not torch.equal(short[name], exact[name]) for name in exact if name.endswith(".weight"))
    tensors = {name: tensor.clone() for name, tensor in seat.state_tensors()}
    assert sum(tensor.dtype == torch.uint8 for tensor in tensors.values()) == 2
    again = pack.new_seat(config)
    again.load_state(tensors, step=seat.step, micro_step=seat.micro_step, num_tokens=seat.num_tokens)
    for each in (seat, again):
        pack.train_step({each: share})
    assert all(torch.equal(again.parameters[name], value) for name, value in seat.parameters.items())


def test_a_frozen_embedding_costs_a_seat_nothing(new_pack: Callable[..., Pack]) -> None:
    pack = new_pack(train_embeddings=False)
    seat = pack.new_seat(replace(CONFIG, embedding_learning_rate=None))
    assert {kind for kind, _ in seat.segments} == {LORA}
    assert seat.num_trained == sum(4 * (m.in_features + m.out_features) for m in pack.linears)


def test_filling_a_pack_takes_as_many_operations_for_the_last_seat_as_for_the_second(pack: Pack) -> None:
    """With ranks that differ as little as they can; the number of buffers that are replaced is fixed."""
    num_seats, counts = 12, []
    seats: list[Seat] = []
    buffers = pack.adapter_buffers
    assert buffers is not None
    pack.release_memory()  # of seats of other tests
    before = buffers.num_replaced
    for index in range(num_seats):
        with OperationCounter() as counter:
            seats.append(
                pack.new_seat(replace(CONFIG, seed=index), seats_to_come=num_seats - index - 1),
            )
        counts.append(counter.num_operations)
    assert buffers.num_replaced - before == len(buffers.present())
    assert counts[1:] == [counts[1]] * (num_seats - 1)
    # Each layer is drawn by itself, and nothing else depends on their number.
    assert counts[1] < 2 * len(pack.linears) + 40


def test_a_seat_of_a_higher_rank_makes_room_for_others_like_it(new_pack: Callable[..., Pack]) -> None:
    pack = new_pack(train_embeddings=False)
    buffers = pack.adapter_buffers
    assert buffers is not None
    replaced, seats = [], []
    for left, rank in ((5, 8), (4, 5), (3, 32), (2, 64), (1, 16), (0, 64)):
        before = buffers.num_replaced
        seats.append(pack.new_seat(replace(CONFIG, lora_r=rank), seats_to_come=left))
        replaced.append(buffers.num_replaced > before)
    # The third still fits into what was kept for four of rank 8.
    assert replaced == [True, False, False, True, False, False]
