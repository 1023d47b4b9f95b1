"""Training only the rows of a few tokens: against peft's `trainable_token_indices`, and in packs."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import AutoModelForCausalLM, AutoTokenizer, get_scheduler

from lora_runner.adapters import save_adapter
from lora_runner.base.load_model import BaseSpec, load_base
from lora_runner.checkpoint import load_checkpoint, save_checkpoint
from lora_runner.config import TrialConfig
from lora_runner.errors import CheckpointError, ModelError, TrialConfigError
from lora_runner.layout.pack_layout import Block
from lora_runner.pack.convert_model import silence_dropout
from lora_runner.pack.options import PackOptions
from lora_runner.pack.pack import MicroBatch, Pack
from lora_runner.pack.seat import EMBEDDINGS, Seat
from tests.lora_runner.plain_models import block_of, figures, plain_nf4

TINY = Callable[..., Path]
PAD, NEVER_SEEN = 1, 255
TOKENS = (PAD, 7, 200, NEVER_SEEN)
"""Among them the pad and end token, whose row gets no gradient in torch, and one that is in no batch."""
STEPS = 4

CONFIGS = [
    TrialConfig(
        learning_rate=5e-3,
        embedding_learning_rate=5e-3,
        lr_scheduler_type="cosine",
        warmup_steps=1,
        max_steps=STEPS,
        lora_r=4,
        lora_alpha=8,
        seed=1,
    ),
    TrialConfig(
        learning_rate=2e-3,
        embedding_learning_rate=2e-2,
        lr_scheduler_type="constant",
        max_steps=STEPS,
        gradient_accumulation_steps=2,
        lora_r=16,
        lora_alpha=16,
        max_grad_norm=0.3,
        weight_decay=0.1,
        seed=2,
    ),
]
SHAPES = [(2, 12), (3, 9)]
BASES = [
    pytest.param("llama", {}, id="untied"),
    pytest.param("llama", {"tie_word_embeddings": True}, id="tied"),
    pytest.param("gemma2", {}, id="tied-and-scaled"),
]


def new_pack(folder: Path, **options: Any) -> Pack:
    options = {"trainable_token_indices": TOKENS, "resident_weights": True} | options
    return Pack(load_base(BaseSpec(model=str(folder))), PackOptions(**options))


def windows(index: int) -> list[list[tuple[Tensor, Tensor]]]:
    """[step][micro-batch] -> (ids, labels) of one trial; the trained tokens but one occur, and repeat."""
    generator = torch.Generator().manual_seed(100 + index)
    out = []
    for _ in range(STEPS):
        window = []
        for _ in range(CONFIGS[index].gradient_accumulation_steps):
            ids = torch.randint(2, NEVER_SEEN, SHAPES[index], generator=generator)
            ids[:, 2], ids[:, 5], ids[0, 7], ids[:, 8] = 7, 7, 200, PAD
            masked = torch.rand(SHAPES[index], generator=generator) < 0.33
            window.append((ids, ids.masked_fill(masked, -100)))
        out.append(window)
    return out


def count(window: list[tuple[Tensor, Tensor]]) -> int:
    return sum(int((labels[:, 1:] != -100).sum()) for _, labels in window)


def train(pack: Pack, seats: dict[int, Seat], *, until: int = STEPS) -> dict[int, list[tuple[float, float]]]:
    """Run the seats side by side up to step `until`. -> (loss, norm) per step and trial."""
    data = {i: windows(i) for i in seats}
    seen: dict[int, list[tuple[float, float]]] = {i: [] for i in seats}
    while running := {i: seat for i, seat in seats.items() if seat.step < until}:
        shares = {}
        for i, seat in running.items():
            window = data[i][seat.step]
            ids, labels = window[seat.micro_step % len(window)]
            shares[seat] = MicroBatch(block_of(ids, labels), ids.numel(), count(window))
        for seat, stats in pack.train_step(shares).items():
            index = next(i for i in running if running[i] is seat)
            seen[index].append(figures(stats))
    return seen


def new_peft(folder: Path, config: TrialConfig) -> PeftModel:
    model = plain_nf4(folder)
    peft = LoraConfig(
        task_type="CAUSAL_LM",
        r=config.lora_r,
        lora_alpha=config.lora_alpha,
        target_modules="all-linear",
        trainable_token_indices=list(TOKENS),
    )
    return get_peft_model(model, peft).train()


def train_with_peft(
    model: PeftModel, index: int, start: dict[str, Tensor]
) -> tuple[list[tuple[float, float]], dict[str, Tensor]]:
    """The usual loop with two groups, from the seat's own start. -> (loss, norm) per step, weights."""
    config = CONFIGS[index]
    trained = {
        name.removeprefix("base_model.model.").removesuffix(".weight").removesuffix(".default"): parameter
        for name, parameter in model.named_parameters()
        if parameter.requires_grad
    }
    assert set(trained) == set(start)
    with torch.no_grad():
        for name, parameter in trained.items():
            parameter.copy_(start[name])
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
    for window in windows(index):
        loss_sum = 0.0
        for ids, labels in window:
            logits = model(input_ids=ids).logits[:, :-1].flatten(0, 1)
            loss = torch.nn.functional.cross_entropy(logits, labels[:, 1:].flatten(), reduction="sum")
            (loss / count(window)).backward()
            loss_sum += float(loss.detach()) / count(window)
        norm = torch.nn.utils.clip_grad_norm_(trained.values(), config.max_grad_norm)
        optimizer.step()
        scheduler.step()
        optimizer.zero_grad()
        seen.append((loss_sum, float(norm)))
    return seen, {name: parameter.detach().clone() for name, parameter in trained.items()}


def copies(seat: Seat) -> dict[str, Tensor]:
    return {name: parameter.clone() for name, parameter in seat.parameters.items()}


def rows_of(seat: Seat) -> Tensor:
    (rows,) = seat.saved.values()
    return rows


@pytest.mark.parametrize(("kind", "change"), BASES)
def test_every_seat_trains_as_peft_trains_these_tokens_alone(
    tiny_model: TINY, kind: str, change: dict[str, Any]
) -> None:
    folder = tiny_model(kind, **change)
    pack = new_pack(folder)
    seats = {i: pack.new_seat(config) for i, config in enumerate(CONFIGS)}
    starts = {i: copies(seat) for i, seat in seats.items()}
    packed = train(pack, seats)
    for i, config in enumerate(CONFIGS):
        alone, weights = train_with_peft(new_peft(folder, config), i, starts[i])
        assert packed[i] == [pytest.approx(pair, rel=2e-5) for pair in alone]
        for name, weight in weights.items():
            moved = float((weight - starts[i][name]).abs().max())
            torch.testing.assert_close(seats[i].parameters[name], weight, rtol=0, atol=1e-5 + 2e-3 * moved)


@pytest.mark.parametrize(("kind", "change"), BASES)
def test_a_seat_does_not_feel_its_neighbour_and_the_base_keeps_every_bit(
    tiny_model: TINY, kind: str, change: dict[str, Any]
) -> None:
    pack = new_pack(tiny_model(kind, **change))
    before = pack.saved[0].weight.clone()
    together = {i: pack.new_seat(config) for i, config in enumerate(CONFIGS)}
    with_neighbour = train(pack, together)
    alone = {1: pack.new_seat(CONFIGS[1])}
    assert train(pack, alone)[1] == with_neighbour[1]
    for name, parameter in alone[1].parameters.items():
        assert torch.equal(parameter, together[1].parameters[name]), name
    assert torch.equal(pack.saved[0].weight, before)


@pytest.mark.parametrize("layout", ["end_to_end", "rectangular"])
@pytest.mark.parametrize("tied", [False, True])
def test_only_rows_with_a_gradient_move(tiny_model: TINY, tied: bool, layout: Any) -> None:
    """Untied: not the rows of the pad token and of a token in no batch; tied: all, through the logits."""
    pack = new_pack(tiny_model("llama", tie_word_embeddings=tied))
    pack.layout = layout
    seat = pack.new_seat(CONFIGS[0])
    start = rows_of(seat).clone()
    assert torch.equal(start, pack.saved[0].weight[list(TOKENS)])
    train(pack, {0: seat})
    moved = (rows_of(seat) != start).any(1).tolist()
    assert moved == ([True] * 4 if tied else [False, True, True, False])


class Watch(TorchDispatchMode):
    """The operations called, and the storages of results with the matrix's shape."""

    def __init__(self, shape: tuple[int, int]) -> None:
        super().__init__()
        self.shape, self.storages = shape, set[int]()
        self.names: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        self.names[func.overloadpacket.__name__] += 1
        for tensor in out if isinstance(out, tuple | list) else [out]:
            if isinstance(tensor, Tensor) and set(tensor.shape[-2:]) == set(self.shape):
                self.storages.add(tensor.untyped_storage().data_ptr())
        return out


@pytest.mark.parametrize("tied", [False, True])
def test_a_seat_holds_rows_and_no_pass_makes_a_matrix_or_asks_the_device_for_a_number(
    tiny_model: TINY, tied: bool
) -> None:
    asked = []
    for tokens in (TOKENS, ()):
        pack = new_pack(tiny_model("llama", tie_word_embeddings=tied), trainable_token_indices=tokens)
        seats = {i: pack.new_seat(config) for i, config in enumerate(CONFIGS)}
        train(pack, seats, until=1)  # resident weights exist now
        shares = {seat: MicroBatch(block_of(*windows(i)[1][0]), 1, 9) for i, seat in seats.items()}
        with Watch((256, 64)) as seen:
            pack.micro_step(shares)
        base = {m.weight.untyped_storage().data_ptr() for m in pack.model.modules() if hasattr(m, "weight")}
        assert seen.storages <= base
        # Operations that wait for a number or a data-dependent shape from the device.
        asked.append({n: seen.names[n] for n in ("_local_scalar_dense", "nonzero", "_unique2", "item")})
        if tokens:
            assert seen.names["searchsorted"]
            shapes = [s.shapes for (group, _), s in seats[0].segments.items() if group == EMBEDDINGS]
            assert shapes == [{"model.embed_tokens.token_adapter.trainable_tokens_delta": (4, 64)}]
            assert rows_of(seats[0]).dtype == torch.float32
    assert asked[0] == asked[1]


@pytest.mark.parametrize("tied", [False, True])
def test_gradient_checkpointing_changes_no_number(tiny_model: TINY, tied: bool) -> None:
    folder = tiny_model("llama", tie_word_embeddings=tied)
    seen = []
    for checkpointing in (False, True):
        pack = new_pack(folder, gradient_checkpointing=checkpointing)
        seen.append(train(pack, {0: pack.new_seat(replace(CONFIGS[0], lora_dropout=0.2))})[0])
    assert seen[0] == seen[1]


@pytest.mark.parametrize("tied", [False, True])
def test_a_base_in_bfloat16_stays_near_the_exact_numbers(tiny_model: TINY, tied: bool) -> None:
    base = BaseSpec(model=str(tiny_model("llama", tie_word_embeddings=tied)), compute_dtype="bfloat16")
    pack = Pack(load_base(base), PackOptions(trainable_token_indices=TOKENS))
    seat = pack.new_seat(CONFIGS[0])
    start = rows_of(seat).clone()
    exact = new_pack(Path(base.model))
    near, reference = train(pack, {0: seat})[0], train(exact, {0: exact.new_seat(CONFIGS[0])})[0]
    assert [loss for loss, _ in near] == pytest.approx([loss for loss, _ in reference], rel=1e-2)
    assert [norm for _, norm in near] == pytest.approx([norm for _, norm in reference], rel=5e-2)
    assert rows_of(seat).dtype == torch.float32
    assert (rows_of(seat) != start).any(1).tolist() == ([True] * 4 if tied else [False, True, True, False])


@pytest.mark.parametrize("tied", [False, True])
def test_logits_in_chunks_are_the_same(tiny_model: TINY, tied: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    pack = new_pack(tiny_model("llama", tie_word_embeddings=tied))
    whole = train(pack, {i: pack.new_seat(config) for i, config in enumerate(CONFIGS)})
    monkeypatch.setattr("lora_runner.pack.packed_model.MAX_LOGITS", 256 * 5)
    in_turns = train(pack, {i: pack.new_seat(config) for i, config in enumerate(CONFIGS)})
    for i in whole:
        assert in_turns[i] == [pytest.approx(pair, rel=1e-5) for pair in whole[i]]


@pytest.mark.parametrize(
    ("kind", "change"),
    [*BASES, pytest.param("gpt2", {"tie_word_embeddings": True}, id="gpt2-transposed-and-tied")],
)
def test_peft_loads_the_adapter_on_the_original_base_to_the_same_logits(
    tiny_model: TINY, tmp_path: Path, kind: str, change: dict[str, Any]
) -> None:
    folder = tiny_model(kind, **change)
    pack = new_pack(folder)
    seat = pack.new_seat(CONFIGS[1])
    train(pack, {1: seat})
    save_adapter(tmp_path / "ours", pack, seat)
    plain = plain_nf4(folder)
    # In training mode, since in the other bitsandbytes multiplies in bfloat16 on a CPU; dropout is 0.
    model = PeftModel.from_pretrained(plain, str(tmp_path / "ours")).train()
    silence_dropout(model.base_model.model)
    ids = torch.tensor([[3, 7, 200, PAD, 9, NEVER_SEEN, 7]])
    with torch.no_grad():
        logits = model(input_ids=ids).logits[0]
        with model.disable_adapter():
            plain_logits = model(input_ids=ids).logits[0]
        block = Block.next_token([ids[0, : end + 1].tolist() for end in range(7)], pack.base.device)
        ours = pack.logits([seat], [block], pack.layout)[0]
    torch.testing.assert_close(ours, logits, rtol=1e-4, atol=1e-4)
    assert float((ours - plain_logits).abs().max()) > 1e-2
    # And peft itself writes the same names, shapes and settings.
    new_peft(folder, CONFIGS[1]).save_pretrained(tmp_path / "theirs")
    written = [load_file(tmp_path / who / "adapter_model.safetensors") for who in ("ours", "theirs")]
    assert {n: t.shape for n, t in written[0].items()} == {n: t.shape for n, t in written[1].items()}
    settings = [
        json.loads((tmp_path / who / "adapter_config.json").read_text()) for who in ("ours", "theirs")
    ]
    for name in ("trainable_token_indices", "modules_to_save", "ensure_weight_tying"):
        assert settings[0][name] == settings[1][name], name


def test_a_checkpoint_brings_the_rows_back_and_is_refused_where_other_tokens_are_trained(
    tiny_model: TINY, tmp_path: Path
) -> None:
    folder = tiny_model("llama", tie_word_embeddings=True)
    pack = new_pack(folder)
    whole = pack.new_seat(CONFIGS[1])
    losses = train(pack, {1: whole})[1]
    half, again = pack.new_seat(CONFIGS[1]), pack.new_seat(CONFIGS[1])
    train(pack, {1: half}, until=2)
    save_checkpoint(tmp_path / "c", half, {})
    load_checkpoint(tmp_path / "c", again)
    assert train(pack, {1: again})[1] == losses[2:]
    for name, parameter in whole.parameters.items():
        assert torch.equal(parameter, again.parameters[name]), name
    other = new_pack(folder, trainable_token_indices=(2, 3, 4, 5))
    with pytest.raises(CheckpointError, match="trains other tokens"):
        load_checkpoint(tmp_path / "c", other.new_seat(CONFIGS[1]))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"trainable_token_indices": (3, 256)}, "0 to 255, got 256"),
        ({"trainable_token_indices": (-1,)}, "0 to 255, got -1"),
        ({"train_embeddings": True}, "exclude each other"),
        ({"target_modules": ("q_proj", "lm_head")}, r"lm_head cannot be trained by its tokens .* choose one"),
    ],
)
def test_what_contradicts_itself_is_refused(tiny_model: TINY, options: dict[str, Any], words: str) -> None:
    with pytest.raises(ModelError, match=words):
        new_pack(tiny_model("llama", tie_word_embeddings=True), **options)


def test_ids_are_taken_in_any_order_and_the_trial_needs_a_rate_for_them(tiny_model: TINY) -> None:
    pack = new_pack(tiny_model("llama"), trainable_token_indices=(200, 7, 200))
    assert pack.saved[0].token_indices == (7, 200)
    with pytest.raises(TrialConfigError, match=r"embedding_learning_rate is needed.*embed_tokens"):
        pack.new_seat(replace(CONFIGS[0], embedding_learning_rate=None))


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("wanted", [True, (256, 257, 258), (257,)], ids=["in-full", "added", "one-of-them"])
def test_a_base_with_tokens_added(tiny_model: TINY, tmp_path: Path, tied: bool, wanted: Any) -> None:
    """Saved after `resize_token_embeddings`: trained, saved, and loaded by peft to the same logits."""
    source = tiny_model("llama", tie_word_embeddings=tied)
    larger = AutoModelForCausalLM.from_pretrained(source)
    tokenizer = AutoTokenizer.from_pretrained(source)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|user|>", "<|end|>", "<|tool|>"]})
    larger.resize_token_embeddings(len(tokenizer))
    larger.save_pretrained(tmp_path / "base")
    tokenizer.save_pretrained(tmp_path / "base")
    options = {"train_embeddings": True} if wanted is True else {"trainable_token_indices": wanted}
    pack = new_pack(tmp_path / "base", **({"trainable_token_indices": ()} | options))
    seat = pack.new_seat(CONFIGS[0])
    start = rows_of(seat).clone() if tied or wanted is not True else None
    ids = torch.tensor([[256, 5, 6, 257, 258, 9, 257]])
    for _ in range(STEPS):
        pack.train_step({seat: MicroBatch(block_of(ids, ids), 7, 6)})
    if start is not None:
        added = slice(-3, None) if wanted is True else slice(None)
        assert (rows_of(seat)[added] != start[added]).any(1).all()
    save_adapter(tmp_path / "adapter", pack, seat)
    plain = plain_nf4(tmp_path / "base")
    model = PeftModel.from_pretrained(plain, str(tmp_path / "adapter")).train()
    with torch.no_grad():
        logits = model(input_ids=ids).logits[0, -1:]
        ours = pack.logits([seat], [Block.next_token(ids.tolist(), pack.base.device)], pack.layout)[0]
    assert ours.shape == (1, 259)
    torch.testing.assert_close(ours, logits, rtol=1e-4, atol=1e-4)
