"""Bases that are stored quantized: computed as transformers computes them, or refused by their config."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig, MixtralConfig

from lora_runner.base.load_model import BaseSpec, load_base, meta_model
from lora_runner.base.quantization import NF4, dequantize_into, dequantized_weight, quantization_of
from lora_runner.base.unquantized_part import EMBEDDINGS, EXPERTS, unquantized_parameters
from lora_runner.config import TrialConfig
from lora_runner.data import DataBundle
from lora_runner.errors import ModelError
from lora_runner.layout.pack_layout import Block
from lora_runner.memory.estimate import Workload, choose_seats, estimate
from lora_runner.pack.options import PackOptions
from lora_runner.pack.pack import MicroBatch, Pack

TINY = Callable[..., Path]
FOUR = {"load_in_4bit": True}
KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "double": ("nf4", FOUR | {"bnb_4bit_quant_type": "nf4", "bnb_4bit_use_double_quant": True}),
    "single": ("nf4-single", FOUR | {"bnb_4bit_quant_type": "nf4", "bnb_4bit_compute_dtype": torch.bfloat16}),
    "fp4": ("fp4", FOUR),
    "fp4 double": ("fp4-double", FOUR | {"bnb_4bit_use_double_quant": True}),
    "floats": ("nf4-single", FOUR | {"bnb_4bit_quant_type": "nf4", "bnb_4bit_quant_storage": torch.bfloat16}),
    "skipped": (
        "nf4-single",
        FOUR
        | {"bnb_4bit_quant_type": "nf4", "llm_int8_skip_modules": ["lm_head", "model.layers.1.mlp.up_proj"]},
    ),
    "int8": ("int8", {"load_in_8bit": True}),
    "int8 skipped": ("int8", {"load_in_8bit": True, "llm_int8_skip_modules": ["lm_head", "q_proj"]}),
}


@pytest.fixture(scope="module")
def stored(tiny_model: TINY, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """`stored("fp4", dtype)`: a folder that bitsandbytes has quantized so, the rest of it in `dtype`."""
    made: dict[tuple[str, torch.dtype], Path] = {}

    def make(kind: str, dtype: torch.dtype = torch.float32) -> Path:
        if (kind, dtype) not in made:
            source, folder = tiny_model("llama"), tmp_path_factory.mktemp("stored")
            config = BitsAndBytesConfig(**KINDS[kind][1])
            model = AutoModelForCausalLM.from_pretrained(source, quantization_config=config, dtype=dtype)
            model.save_pretrained(folder)
            AutoTokenizer.from_pretrained(source).save_pretrained(folder)
            made[kind, dtype] = folder
        return made[kind, dtype]

    return make


def meant(folder: Path) -> nn.Module:
    """The dequantized weights in float32, by transformers and bitsandbytes."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval().dequantize().float()
    model._weight_conversions = []  # conversions for reading must not apply to writing
    return model


def block_of(bundle: DataBundle) -> Block:
    examples = bundle.eval.examples
    return Block.of([(e.input_ids, e.labels) for e in examples], torch.device("cpu"))


@pytest.mark.parametrize("kind", KINDS)
def test_the_untrained_base_has_the_loss_of_its_dequantized_weights(
    stored: Callable[..., Path], kind: str, bundle: DataBundle, plain_nll: Callable[..., float]
) -> None:
    folder = stored(kind, torch.bfloat16 if kind in ("single", "int8") else torch.float32)
    base = load_base(BaseSpec(model=str(folder)))
    (loss,) = Pack(base, PackOptions()).evaluate([None], [block_of(bundle)])
    assert loss == pytest.approx(plain_nll(meant(folder), bundle.eval), abs=2e-6)


@pytest.mark.parametrize("kind", ["double", "floats", "int8", "int8 skipped"])
def test_weights_are_written_into_rows_of_a_tensor(stored: Callable[..., Path], kind: str) -> None:
    attention = load_base(BaseSpec(model=str(stored(kind)))).model.get_submodule("model.layers.0.self_attn")
    layers = [attention.get_submodule(f"{name}_proj") for name in "qkv"]
    whole = torch.cat([dequantized_weight(layer).float() for layer in layers])
    for dtype in (torch.float32, torch.bfloat16):
        siblings = torch.zeros(2 + len(whole), whole.shape[1], dtype=dtype)
        dequantize_into(siblings[2:], *layers)
        assert torch.equal(siblings[2:], whole.to(dtype))
        assert not siblings[:2].any()


@pytest.mark.parametrize("kind", ["fp4", "int8"])
def test_a_trial_trains_as_on_the_weights_that_are_meant(
    stored: Callable[..., Path], kind: str, bundle: DataBundle, tmp_path: Path
) -> None:
    folder = stored(kind)
    meant(folder).save_pretrained(tmp_path)
    AutoTokenizer.from_pretrained(folder).save_pretrained(tmp_path)
    losses = []
    for spec in (BaseSpec(model=str(folder)), BaseSpec(model=str(tmp_path), quantization="none")):
        pack = Pack(load_base(spec), PackOptions(resident_weights=True))
        seat = pack.new_seat(TrialConfig(learning_rate=1e-2, max_steps=4, lora_r=4, lora_alpha=8))
        block = block_of(bundle)
        for _ in range(4):
            pack.train_step({seat: MicroBatch(block, block.num_tokens, block.num_targets)})
        losses.append(pack.evaluate([None, seat], [block]))
    assert losses[0] == pytest.approx(losses[1], abs=2e-6)
    assert losses[0][1] < losses[0][0] - 0.01


@pytest.mark.parametrize("kind", KINDS)
def test_its_kind_its_layers_and_its_memory_are_known_before_it_is_loaded(
    stored: Callable[..., Path], kind: str
) -> None:
    spec = BaseSpec(model=str(stored(kind)))
    meta = meta_model(spec)
    found = quantization_of(meta.config, spec.model, "nf4")
    name, settings = KINDS[kind]
    assert found.name == name
    assert found.is_stored
    recorded = BitsAndBytesConfig(**found.settings).to_dict()
    wanted = BitsAndBytesConfig(**settings).to_dict()
    for key in ("load_in_8bit", "bnb_4bit_quant_type", "bnb_4bit_use_double_quant", "llm_int8_skip_modules"):
        assert recorded[key] == wanted[key]
    model = load_base(spec).model
    kept = [n for n, m in model.named_modules() if type(m).__name__ in ("Linear4bit", "Linear8bitLt")]
    assert list(found.layers(meta)) == kept
    assert estimate(spec, Workload(lora_r=8, batch_size=2, length=16)).base == pytest.approx(
        num_bytes(model), rel=5e-4
    )


def num_bytes(model: nn.Module) -> int:
    total = 0
    for parameter in {id(p): p for p in model.parameters()}.values():
        tensors = [parameter]
        if (state := getattr(parameter, "quant_state", None)) is not None:
            tensors += [state.absmax] + ([state.state2.absmax] if state.nested else [])
        if (scales := getattr(parameter, "SCB", None)) is not None:
            tensors.append(scales)
        total += sum(t.numel() * t.element_size() for t in tensors)
    return total


def test_the_compute_dtype_is_the_sweeps_not_the_folders(stored: Callable[..., Path]) -> None:
    base = load_base(BaseSpec(model=str(stored("single", torch.bfloat16)), compute_dtype="float32"))
    assert {p.dtype for p in base.model.parameters()} == {torch.float32, torch.uint8}
    base = load_base(BaseSpec(model=str(stored("fp4")), compute_dtype="bfloat16"))
    assert {p.dtype for p in base.model.parameters()} == {torch.bfloat16, torch.uint8}


# --- what is refused ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "name"),
    [
        ({"quant_method": "gptq", "bits": 4, "group_size": 128}, r"GPTQ \(4 bits\)"),
        ({"quant_method": "awq", "bits": 4, "version": "gemm"}, r"AWQ \(4 bits\)"),
        ({"quant_method": "fp8", "weight_block_size": [128, 128]}, "FP8"),
        ({"quant_method": "compressed-tensors", "format": "pack-quantized"}, "compressed-tensors"),
        ({"quant_method": "hqq"}, "HQQ"),
        ({"quant_method": "mxfp4"}, "MXFP4"),
        ({"quant_method": "of-tomorrow"}, "OF-TOMORROW"),
        ({"quant_algo": "NVFP4"}, "NVFP4"),
        ({"group_size": 64, "bits": 4, "mode": "affine"}, r"AFFINE \(4 bits\)"),
        ({"group_size": 64, "bits": 4}, r"an unnamed method \(4 bits\)"),
    ],
)
def test_other_quantizations_are_refused_by_their_config(
    tiny_model: TINY, tmp_path: Path, said: dict[str, Any], name: str
) -> None:
    folder = Path(shutil.copytree(tiny_model("llama"), tmp_path / "model"))
    config = json.loads((folder / "config.json").read_text())
    for key in ("quantization_config", "compression_config"):
        (folder / "config.json").write_text(json.dumps(config | {key: said}))
        for refuse in (meta_model, load_base):
            with pytest.raises(ModelError, match=rf"is quantized with {name}, .* the unquantized model"):
                refuse(BaseSpec(model=str(folder)))


# --- what is not quantized ----------------------------------------------------------------------------


def test_what_stays_in_the_compute_dtype_is_said(tiny_model: TINY, stored: Callable[..., Path]) -> None:
    work = Workload(lora_r=8, batch_size=2, length=16)
    dense = choose_seats(BaseSpec(model=str(tiny_model("llama"))), work, most=2)
    assert "of it stay in float32: embeddings and output layer" in dense.unquantized
    assert "experts" not in dense.unquantized
    assert "other linear layers" not in dense.unquantized
    assert (
        "other linear layers"
        in choose_seats(BaseSpec(model=str(stored("skipped"))), work, most=2).unquantized
    )


def test_fused_experts_are_counted_as_what_stays_unquantized() -> None:
    """bitsandbytes quantizes only linear layers; the experts of a mixture are one parameter per layer."""
    sizes = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2}
    config = MixtralConfig(vocab_size=256, intermediate_size=128, num_local_experts=4, **sizes)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    found = unquantized_parameters(model, NF4)
    assert found[EXPERTS] == 2 * 4 * 3 * 64 * 128
    assert found[EMBEDDINGS] == 2 * 256 * 64
    assert sum(found.values()) == sum(p.numel() for p in model.parameters()) - 2 * 64 * (64 + 32 + 32 + 64)


def test_a_base_that_alone_does_not_fit_is_named_as_the_reason(tiny_model: TINY) -> None:
    spec, work = BaseSpec(model=str(tiny_model("llama"))), Workload(lora_r=8, batch_size=2, length=16)
    base = estimate(spec, work).base
    found = choose_seats(spec, work, most=2, available=base)
    assert found.smallest_base == base
    assert "even one does not fit into 85% of" in found.reason
    assert "the base alone takes" in found.reason
    assert "the base alone" not in choose_seats(spec, work, most=2, available=1.3 * base).reason
