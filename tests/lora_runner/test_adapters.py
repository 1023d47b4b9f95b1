"""`PeftModel.from_pretrained` loads a saved seat on the original base, with the same loss."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file

from lora_runner.adapters import save_adapter
from lora_runner.config import TrialConfig
from lora_runner.data import BatchPlan, DataBundle, TokenizedExample
from lora_runner.layout.pack_layout import Block
from lora_runner.pack.pack import MicroBatch, Pack
from lora_runner.pack.seat import Seat
from tests.lora_runner.plain_models import plain_nf4

CONFIG = TrialConfig(
    learning_rate=2e-2,
    embedding_learning_rate=2e-2,
    lr_scheduler_type="constant",
    max_steps=6,
    per_device_train_batch_size=4,
    lora_r=4,
    lora_alpha=12,
    lora_dropout=0.1,
    seed=3,
)


def block_of(pack: Pack, examples: Sequence[TokenizedExample]) -> Block:
    return Block.of([(e.input_ids, e.labels) for e in examples], pack.base.device)


def train(pack: Pack, seat: Seat, bundle: DataBundle) -> None:
    plan = BatchPlan(train=bundle.train, batch_size=4, seed=0)
    while not seat.finished:
        block = block_of(pack, plan.examples_at(seat.micro_step))
        pack.train_step({seat: MicroBatch(block, 1, len(block.target_ids))})


def evaluate(pack: Pack, seat: Seat | None, examples: tuple[TokenizedExample, ...]) -> float:
    return pack.evaluate([seat], [block_of(pack, examples)])[0]


def load(pack: Pack, folder: Path) -> PeftModel:
    """The original base and the adapter, loaded by transformers and peft."""
    base = plain_nf4(pack.base.spec.model)
    return PeftModel.from_pretrained(base, str(folder))


def loss_of(model: PeftModel, bundle: DataBundle, nll: Callable[..., float], *, exact: bool) -> float:
    # bitsandbytes multiplies in bfloat16 on CPUs once a model is in evaluation mode. In training mode it does
    # not; LoRA's dropout must then be disabled by hand.
    model.train(exact)
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    return nll(model, bundle.eval)


@pytest.mark.parametrize(
    ("pack_options", "change"),
    [
        pytest.param({"train_embeddings": False}, {}, id="lora"),
        pytest.param({"train_embeddings": False}, {"use_rslora": True, "lora_r": 9}, id="rslora"),
        pytest.param({}, {}, id="embeddings"),
        pytest.param({"tie_word_embeddings": True}, {}, id="tied-embeddings"),
        pytest.param({"train_embeddings": ("embed_tokens",)}, {}, id="input-embeddings-only"),
        pytest.param({"train_embeddings": ("lm_head",)}, {}, id="output-layer-only"),
        pytest.param({"target_modules": ("q_proj", "down_proj")}, {}, id="list"),
        pytest.param({"target_modules": r".*layers\.1\.(self_attn|mlp)\.\w+_proj"}, {}, id="one-layer"),
        pytest.param(
            {"target_modules": ("model.layers.0.self_attn.q_proj", "v_proj"), "train_embeddings": False},
            {},
            id="mixed",
        ),
        pytest.param(
            {"target_modules": ("q_proj", "lm_head"), "train_embeddings": False}, {}, id="lora-on-lm-head"
        ),
        pytest.param({"kind": "gemma2"}, {}, id="gemma2-tied-and-scaled"),
        pytest.param({"kind": "gpt2", "tie_word_embeddings": True}, {}, id="gpt2-transposed-and-tied"),
    ],
)
def test_peft_reproduces_the_loss_on_the_original_base(
    new_pack: Callable[..., Pack],
    bundle: DataBundle,
    plain_nll: Callable[..., float],
    tmp_path: Path,
    pack_options: dict[str, Any],
    change: dict[str, Any],
) -> None:
    pack = new_pack(**pack_options)
    seat = pack.new_seat(replace(CONFIG, **change))
    train(pack, seat, bundle)
    save_adapter(tmp_path / "adapter", pack, seat)
    ours, plain = evaluate(pack, seat, bundle.eval.examples), evaluate(pack, None, bundle.eval.examples)
    assert abs(ours - plain) > 5e-3 * plain  # there is something to reproduce
    peft = load(pack, tmp_path / "adapter")
    assert loss_of(peft, bundle, plain_nll, exact=True) == pytest.approx(ours, rel=1e-5)
    assert loss_of(peft, bundle, plain_nll, exact=False) == pytest.approx(ours, rel=1e-3)


def test_a_tied_base_gets_the_trained_copy_on_both_sides(
    new_pack: Callable[..., Pack], bundle: DataBundle, tmp_path: Path
) -> None:
    for wanted in (True, ("embed_tokens",), ("lm_head",)):
        pack = new_pack(tie_word_embeddings=True, train_embeddings=wanted)
        seat = pack.new_seat(CONFIG)
        train(pack, seat, bundle)
        assert list(seat.saved) == ["model.embed_tokens"]
        trained = seat.saved["model.embed_tokens"].detach()
        assert not torch.equal(trained, pack.saved[0].weight)
        save_adapter(tmp_path / "adapter", pack, seat)
        peft = load(pack, tmp_path / "adapter")
        for side in (peft.base_model.model.model.embed_tokens, peft.base_model.model.lm_head):
            assert torch.equal(side.modules_to_save["default"].weight, trained)


def test_the_configuration_says_what_peft_needs(new_pack: Callable[..., Pack], tmp_path: Path) -> None:
    pack = new_pack()
    save_adapter(tmp_path / "a", pack, pack.new_seat(replace(CONFIG, use_rslora=True, lora_alpha=7)))
    written = json.loads((tmp_path / "a" / "adapter_config.json").read_text())
    expected = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": pack.base.spec.model,
        "revision": None,
        "r": 4,
        "lora_alpha": 7,
        "lora_dropout": 0.1,
        "use_rslora": True,
        "bias": "none",
        "inference_mode": True,
        "fan_in_fan_out": False,
        "modules_to_save": ["embed_tokens", "lm_head"],
    }
    assert {key: written[key] for key in expected} == expected
    assert sorted(written["target_modules"]) == [
        "down_proj",
        "gate_proj",
        "k_proj",
        "o_proj",
        "q_proj",
        "up_proj",
        "v_proj",
    ]


def test_layers_left_alone_are_not_named_by_their_last_part(
    new_pack: Callable[..., Pack], tmp_path: Path
) -> None:
    pack = new_pack(target_modules=(r"model.layers.1.self_attn.q_proj", "v_proj"), train_embeddings=False)
    save_adapter(tmp_path / "a", pack, pack.new_seat(CONFIG))
    written = json.loads((tmp_path / "a" / "adapter_config.json").read_text())
    assert sorted(written["target_modules"]) == [
        "model.layers.0.self_attn.v_proj",
        "model.layers.1.self_attn.q_proj",
        "model.layers.1.self_attn.v_proj",
    ]
    assert written["modules_to_save"] is None


def test_the_folder_holds_fp32_masters_and_is_written_whole(
    new_pack: Callable[..., Pack], tmp_path: Path
) -> None:
    pack = new_pack(spec={"compute_dtype": "bfloat16"})
    seat = pack.new_seat(CONFIG)
    for _ in range(2):  # the second replaces the first
        save_adapter(tmp_path / "a", pack, seat)
    assert [p.name for p in tmp_path.iterdir()] == ["a"]
    assert sorted(p.name for p in (tmp_path / "a").iterdir()) == [
        "adapter_config.json",
        "adapter_model.safetensors",
    ]
    tensors = load_file(tmp_path / "a" / "adapter_model.safetensors")
    assert len(tensors) == 2 * len(seat.lora_offsets) + 2
    assert {tensor.dtype for tensor in tensors.values()} == {torch.float32}
