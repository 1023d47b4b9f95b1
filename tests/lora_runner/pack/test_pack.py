"""A pack's numbers against transformers and peft training each trial alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from accelerate import dispatch_model
from peft import LoraConfig, get_peft_model
from torch import Tensor
from transformers import AutoModelForCausalLM, get_scheduler

from lora_runner.base.load_model import BaseSpec, load_base
from lora_runner.certificate.decision import Decision
from lora_runner.config import TrialConfig
from lora_runner.fused.compute_path import Machine
from lora_runner.kernels.frozen_product import use_way, way_for
from lora_runner.pack.options import PackOptions
from lora_runner.pack.pack import MicroBatch, Pack
from lora_runner.pack.seat import Seat
from tests.lora_runner.plain_models import block_of, figures, plain_nf4

TINY = Callable[..., Path]
STEPS = 4

CONFIGS = [
    TrialConfig(
        learning_rate=5e-3,
        embedding_learning_rate=5e-4,
        lr_scheduler_type="cosine",
        warmup_steps=1,
        max_steps=STEPS,
        lora_r=4,
        lora_alpha=8,
        seed=1,
    ),
    TrialConfig(
        learning_rate=2e-3,
        embedding_learning_rate=2e-3,
        lr_scheduler_type="constant",
        max_steps=STEPS,
        gradient_accumulation_steps=2,
        lora_r=16,
        lora_alpha=16,
        use_rslora=True,
        max_grad_norm=0.3,
        weight_decay=0.1,
        seed=2,
    ),
    TrialConfig(
        learning_rate=1e-2,
        embedding_learning_rate=1e-5,
        lr_scheduler_type="linear",
        warmup_steps=2,
        max_steps=STEPS,
        lora_r=6,
        lora_alpha=3,
        seed=3,
    ),
]
SHAPES = [(2, 12), (1, 9), (3, 16)]
"""(sequences, tokens) of each trial's micro-batches: all different."""


def batches(index: int, config: TrialConfig) -> list[list[tuple[Tensor, Tensor]]]:
    """[step][micro-batch] -> (ids, labels) of one trial; a third of the labels is masked."""
    generator = torch.Generator().manual_seed(100 + index)
    out = []
    for _ in range(config.max_steps):
        window = []
        for _ in range(config.gradient_accumulation_steps):
            ids = torch.randint(2, 256, SHAPES[index], generator=generator)
            masked = torch.rand(SHAPES[index], generator=generator) < 0.33
            window.append((ids, ids.masked_fill(masked, -100)))
        out.append(window)
    return out


def micro(window: list[tuple[Tensor, Tensor]], at: int) -> MicroBatch:
    targets = sum(int((labels[:, 1:] != -100).sum()) for _, labels in window)
    ids, labels = window[at]
    return MicroBatch(block_of(ids, labels), ids.numel(), targets)


def train(pack: Pack, seats: dict[int, Seat]) -> dict[int, list[tuple[float, float]]]:
    """Run the seats side by side, each to its own end. -> (loss, norm) per step and trial."""
    data = {i: batches(i, seat.config) for i, seat in seats.items()}
    seen: dict[int, list[tuple[float, float]]] = {i: [] for i in seats}
    while running := {i: seat for i, seat in seats.items() if not seat.finished}:
        shares = {
            seat: micro(data[i][seat.step], seat.micro_step % seat.config.gradient_accumulation_steps)
            for i, seat in running.items()
        }
        stats = pack.train_step(shares)
        for i, seat in running.items():
            if seat in stats:
                seen[i].append(figures(stats[seat]))
    return seen


def train_alone_with_peft(
    folder: Path, config: TrialConfig, index: int, start: Seat
) -> tuple[list[tuple[float, float]], dict[str, Tensor]]:
    """The usual loop: transformers + peft + torch.optim.AdamW with two groups, from the seat's own start."""
    model = plain_nf4(folder)
    # peft warns about saving a tied model's modules apart; this loop saves nothing.
    model = get_peft_model(
        model,
        LoraConfig(
            task_type="CAUSAL_LM",
            r=config.lora_r,
            lora_alpha=config.lora_alpha,
            use_rslora=config.use_rslora,
            target_modules="all-linear",
            modules_to_save=["embed_tokens", "lm_head"],
        ),
    )
    model.train()
    trained = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            ours = name.removeprefix("base_model.model.").replace(".default.weight", "")
            ours = ours.replace(".modules_to_save", ".weight")
            trained[ours] = parameter
    assert set(trained) == set(start.parameters)
    with torch.no_grad():
        for name, parameter in trained.items():
            parameter.copy_(start.parameters[name])
    groups = [
        {"params": [p for n, p in trained.items() if ".lora_" in n], "lr": config.learning_rate},
        {
            "params": [p for n, p in trained.items() if ".lora_" not in n],
            "lr": config.embedding_learning_rate,
        },
    ]
    optimizer = torch.optim.AdamW(groups, weight_decay=config.weight_decay)
    scheduler = get_scheduler(
        config.lr_scheduler_type,
        optimizer,
        num_warmup_steps=config.warmup_steps,
        num_training_steps=config.max_steps,
    )
    seen = []
    for window in batches(index, config):
        total = sum(int((labels[:, 1:] != -100).sum()) for _, labels in window)
        loss_sum = 0.0
        for ids, labels in window:
            logits = model(input_ids=ids).logits[:, :-1].flatten(0, 1)
            loss = torch.nn.functional.cross_entropy(logits, labels[:, 1:].flatten(), reduction="sum") / total
            loss.backward()
            loss_sum += float(loss.detach())
        norm = torch.nn.utils.clip_grad_norm_(trained.values(), config.max_grad_norm)
        optimizer.step()
        scheduler.step()
        optimizer.zero_grad()
        seen.append((loss_sum, float(norm)))
    return seen, {name: parameter.detach().clone() for name, parameter in trained.items()}


@pytest.fixture
def pack(tiny_model: TINY) -> Pack:
    return Pack(load_base(BaseSpec(model=str(tiny_model("llama")))), PackOptions(train_embeddings=True))


def test_every_seat_trains_as_transformers_and_peft_would_train_it_alone(
    pack: Pack, tiny_model: TINY
) -> None:
    seats = {i: pack.new_seat(config) for i, config in enumerate(CONFIGS)}
    starts = {i: pack.new_seat(config) for i, config in enumerate(CONFIGS)}
    packed = train(pack, seats)
    for i, config in enumerate(CONFIGS):
        alone, weights = train_alone_with_peft(tiny_model("llama"), config, i, starts[i])
        assert packed[i] == [pytest.approx(pair, rel=2e-5) for pair in alone]
        for name, weight in weights.items():
            moved = (weight - starts[i].parameters[name].detach()).abs().max()
            torch.testing.assert_close(
                seats[i].parameters[name].detach(), weight, rtol=0, atol=1e-5 + 2e-3 * float(moved)
            )


def test_a_seat_does_not_feel_its_neighbours(pack: Pack) -> None:
    """Bit-equal losses and weights alone and beside two others, one of which leaves early."""
    short = replace(CONFIGS[2], max_steps=2)
    together = {0: pack.new_seat(CONFIGS[0]), 1: pack.new_seat(CONFIGS[1]), 2: pack.new_seat(short)}
    with_neighbours = train(pack, together)
    alone = {1: pack.new_seat(CONFIGS[1])}
    assert train(pack, alone)[1] == with_neighbours[1]
    for name, parameter in alone[1].parameters.items():
        assert torch.equal(parameter, together[1].parameters[name]), name


def test_a_neighbour_full_of_nan_changes_nothing(pack: Pack) -> None:
    healthy, sick = pack.new_seat(CONFIGS[0]), pack.new_seat(CONFIGS[2])
    with torch.no_grad():
        next(iter(sick.parameters.values())).fill_(torch.nan)
    losses = train(pack, {0: healthy, 2: sick})
    assert all(loss != loss for loss, _ in losses[2])
    assert losses[0] == train(pack, {0: pack.new_seat(CONFIGS[0])})[0]


def test_dropout_masks_depend_on_the_trial_alone(pack: Pack) -> None:
    config = replace(CONFIGS[0], lora_dropout=0.3)
    other = replace(CONFIGS[1], lora_dropout=0.1)
    packed = train(pack, {0: pack.new_seat(config), 1: pack.new_seat(other)})[0]
    assert train(pack, {0: pack.new_seat(config)})[0] == packed
    assert train(pack, {0: pack.new_seat(replace(config, lora_dropout=0.0))})[0] != packed


def test_gradient_checkpointing_and_resident_weights_change_no_number(tiny_model: TINY) -> None:
    plain: list[list[tuple[float, float]]] = []
    for options in (
        PackOptions(train_embeddings=True),
        PackOptions(train_embeddings=True, gradient_checkpointing=True),
        PackOptions(train_embeddings=True, resident_weights=True),
    ):
        pack = Pack(load_base(BaseSpec(model=str(tiny_model("llama")))), options)
        config = replace(CONFIGS[0], lora_dropout=0.2)
        plain.append(train(pack, {0: pack.new_seat(config)})[0])
    assert plain[1] == plain[0]
    assert plain[2] == plain[0]


@pytest.mark.parametrize(
    ("kind", "layout"),
    [
        ("qwen2", "end_to_end"),
        ("mistral", "end_to_end"),
        ("gemma2", "end_to_end"),
        ("gpt2", "end_to_end"),
        ("bloom", "rectangular"),
    ],
)
def test_other_architectures_give_the_losses_of_the_plain_model(
    tiny_model: TINY, kind: str, layout: str
) -> None:
    """With sliding windows, soft caps, ALiBi and so on, a block's loss is the plain model's."""
    folder = tiny_model(kind)
    base = load_base(BaseSpec(model=str(folder), quantization="none"))
    plain = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    generator = torch.Generator().manual_seed(0)
    batches = [torch.randint(2, 256, shape, generator=generator) for shape in SHAPES]
    blocks = [block_of(ids, ids) for ids in batches]
    with torch.no_grad():
        expected = [float(plain(input_ids=ids, labels=ids).loss) for ids in batches]
    pack = Pack(base, PackOptions(target_modules="all-linear" if kind != "gpt2" else ("lm_head",)))
    assert pack.layout == layout, pack.layout_reason
    with torch.no_grad():
        parts = pack.logits([None] * 3, blocks, pack.layout)
    losses = [
        float(torch.nn.functional.cross_entropy(part, b.target_ids))
        for part, b in zip(parts, blocks, strict=True)
    ]
    assert losses == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("tied", [False, True])
def test_a_base_that_is_spread_by_accelerate_gives_the_same_losses(tiny_model: TINY, tied: bool) -> None:
    """With its hooks, as over several GPUs, but on one device."""
    folder, losses = tiny_model("llama", tie_word_embeddings=tied), []
    for spread in (False, True):
        base = load_base(BaseSpec(model=str(folder)))
        if spread:
            parts = ("model.embed_tokens", "model.layers", "model.norm", "model.rotary_emb", "lm_head")
            dispatch_model(base.model, device_map=dict.fromkeys(parts, "cpu"), force_hooks=True)
            assert "forward" in vars(base.model)
        pack = Pack(base, PackOptions(train_embeddings=True))
        assert pack.layout == "end_to_end", pack.layout_reason
        losses.append(train(pack, {i: pack.new_seat(CONFIGS[i]) for i in (0, 1)}))
    assert losses[0] == losses[1]


def test_evaluation_weighs_tokens_not_batches(pack: Pack) -> None:
    seat = pack.new_seat(CONFIGS[0])
    train(pack, {0: seat})
    generator = torch.Generator().manual_seed(5)
    rows = []
    for kept in (14, 3, 9, 1):
        ids = torch.randint(2, 256, (1, 16), generator=generator)
        labels = ids.clone()
        labels[:, : 16 - kept] = -100
        rows.append((ids, labels))
    one_by_one = [block_of(ids, labels) for ids, labels in rows]
    together = [block_of(torch.cat([i for i, _ in rows]), torch.cat([x for _, x in rows]))]
    assert pack.evaluate([seat, None], one_by_one) == pytest.approx(
        pack.evaluate([seat, None], together), rel=1e-6
    )
    means = [pack.evaluate([seat], [block])[0] for block in one_by_one]
    weighted = sum(mean * len(block.target_ids) for mean, block in zip(means, one_by_one, strict=True))
    num_targets = sum(len(block.target_ids) for block in one_by_one)
    assert pack.evaluate([seat], one_by_one)[0] == pytest.approx(weighted / num_targets, rel=1e-6)
    assert weighted / num_targets != pytest.approx(sum(means) / len(means), rel=5e-4)
    (by_record,) = pack.evaluate_records([seat], together)
    own = [mean * len(block.target_ids) for mean, block in zip(means, one_by_one, strict=True)]
    assert by_record.sums == pytest.approx(own, rel=1e-6)
    assert sum(by_record.sums) / num_targets == pytest.approx(by_record.mean, rel=1e-6)


def test_a_record_without_a_target_has_a_loss_of_zero(pack: Pack) -> None:
    ids = torch.arange(2, 50).view(3, 16)
    labels = ids.clone()
    labels[1] = -100
    (found,) = pack.evaluate_records([None], [block_of(ids, labels)])
    assert [nats > 0 for nats in found.sums] == [True, False, True]
    assert block_of(ids, labels).targets_per_sequence.tolist() == [15, 0, 15]


def test_greedy_samples_equal_transformers_generate(pack: Pack, tiny_model: TINY) -> None:
    plain = plain_nf4(tiny_model("llama")).train()
    prompts = [[5, 6, 7, 8], [9, 10]]
    ours = pack.generate([pack.new_seat(CONFIGS[0])], prompts, 6)[0]
    for prompt, new in zip(prompts, ours, strict=True):
        out = plain.generate(
            torch.tensor([prompt]),
            attention_mask=torch.ones(1, len(prompt)),
            max_new_tokens=6,
            do_sample=False,
        )
        tail = out[0, len(prompt) :].tolist()
        assert new == (tail[: tail.index(1)] if 1 in tail else tail)


def test_a_pack_multiplies_by_no_way_that_an_earlier_one_has_chosen(
    new_pack: Callable[..., Pack], tiny_model: TINY
) -> None:
    x, weight = torch.ones(2, 8), torch.ones(8, 8)
    sizes = {(8, 8, False): 2}
    decision = Decision(product="cublas", library_rows=sizes)
    chosen = Machine(False, "a test says so", decision=decision)
    Pack(load_base(BaseSpec(model=str(tiny_model("llama")))), PackOptions(), chosen)
    try:
        assert way_for(x, weight) == "cublas"
        new_pack()
        assert way_for(x, weight) is None
    finally:
        use_way(x.device, x.dtype, None)
