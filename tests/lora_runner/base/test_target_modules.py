"""Which layers of mixtures, multimodal models and state space models get an adapter, and how peft is told."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from transformers import PreTrainedModel, T5Config

from lora_runner.adapters import save_adapter
from lora_runner.base.describe_adapters import describe_adapters
from lora_runner.base.load_model import BaseSpec, load_base
from lora_runner.base.model_class import model_class
from lora_runner.base.target_modules import extra_peft_targets, find_target_modules
from lora_runner.config import TrialConfig
from lora_runner.errors import ModelError
from lora_runner.layout.pack_layout import Block
from lora_runner.pack.options import PackOptions
from lora_runner.pack.pack import Pack
from tests.conftest import save_tokenizer
from tests.lora_runner.base.architectures import ARCHITECTURES


@pytest.fixture(scope="module")
def structure() -> Callable[[str], PreTrainedModel]:
    """`structure("Mamba-2")` on the meta device."""

    def make(name: str) -> PreTrainedModel:
        config = ARCHITECTURES[name]()
        with torch.device("meta"):
            model: PreTrainedModel = model_class(config, name).from_config(config)
        return model

    return make


def test_only_the_language_model_of_a_multimodal_one_gets_adapters(
    structure: Callable[[str], PreTrainedModel],
) -> None:
    model = structure("Gemma 3 (multimodal)")
    every = find_target_modules(model, "all-linear")
    assert len(every) == 2 * 7
    assert all(".language_model." in name for name in every)
    assert find_target_modules(model, ("q_proj",)) == [name for name in every if name.endswith("q_proj")]
    with pytest.raises(ModelError, match=r"takes model\.vision_tower.*not part of the language model"):
        find_target_modules(model, ("fc1",))
    assert "fc1" in extra_peft_targets(model)
    assert "on 14 linear layers of the language model" in describe_adapters(model, "all-linear")


@pytest.mark.parametrize(
    ("name", "target", "reason"),
    [
        ("Llama 4 (text)", "router", "Llama4Router: its forward"),
        ("Phi-3.5-MoE", "router", "PhimoeTopKRouter: its forward"),
        ("DeepSeek-V3", "up_proj", "for fused experts"),
        ("Mamba-2", "out_proj", "bypassing any adapter"),
    ],
)
def test_what_no_adapter_can_be_added_to_is_left_out_or_refused(
    structure: Callable[[str], PreTrainedModel], name: str, target: str, reason: str
) -> None:
    model = structure(name)
    assert not any(found.endswith(f".{target}") for found in find_target_modules(model, "all-linear"))
    with pytest.raises(ModelError, match=rf"takes .*{target}.*{reason}"):
        find_target_modules(model, (target,))
    assert target in extra_peft_targets(model)
    assert any(reason in sentence for sentence in describe_adapters(model, "all-linear"))


def test_peft_takes_experts_for_all_linear_where_no_linear_layer_tells(
    structure: Callable[[str], PreTrainedModel],
) -> None:
    """So exports must list the names."""
    assert {"gate_proj", "down_proj"} < set(extra_peft_targets(structure("Qwen3-MoE")))
    assert {"w1", "w2", "w3"} < set(extra_peft_targets(structure("Mixtral")))
    for name in ("Llama", "Falcon", "GPT-OSS"):
        assert extra_peft_targets(structure(name)) == []


def test_a_model_without_a_language_model_is_refused() -> None:
    with pytest.raises(ModelError, match=r"model 'them/t5' is of type 't5', which holds no language model"):
        model_class(T5Config(), "them/t5")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["Gemma 3 (multimodal)", "Qwen2-VL", "Qwen3-Next", "Falcon"])
def test_the_adapter_loads_in_plain_peft(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    kind = model_class(config := ARCHITECTURES[name](), name)
    plain = kind.from_config(config).float().eval()
    plain.save_pretrained(tmp_path / "base")
    save_tokenizer(tmp_path / "base")
    spec = BaseSpec(model=str(tmp_path / "base"), quantization="none")
    pack = Pack(load_base(spec), PackOptions())
    seat = pack.new_seat(TrialConfig(learning_rate=1e-3, max_steps=1, lora_r=4, lora_alpha=16))
    for matrix in seat.parameters.values():
        matrix.normal_(std=0.2)
    save_adapter(tmp_path / "adapter", pack, seat)
    loaded = PeftModel.from_pretrained(plain, tmp_path / "adapter").eval()
    ids = list(range(20, 32))
    with torch.no_grad():
        theirs = loaded(input_ids=torch.tensor([ids])).logits[0, :-1]
        without = loaded.get_base_model()
        ours = pack.logits([seat], [Block.of([(ids, ids)], torch.device("cpu"))], pack.layout)[0]
        with loaded.disable_adapter():
            before = without(input_ids=torch.tensor([ids])).logits[0, :-1]
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(before, theirs, atol=1e-2)
