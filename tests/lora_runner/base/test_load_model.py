"""Loading a base: what is refused and why, and that the loaded base is what QLoRA asks for."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from bitsandbytes.backends.cpu import ops
from bitsandbytes.nn import Linear4bit
from transformers import AutoModelForCausalLM
from transformers.utils import logging as transformers_logging

from lora_runner.base.load_model import (
    BaseSpec,
    check_weights,
    count_parameters,
    load_base,
    load_tokenizer,
    meta_model,
)
from lora_runner.base.target_modules import find_modules_to_save, find_target_modules
from lora_runner.config import TrialConfig
from lora_runner.errors import ModelError, RunnerError
from lora_runner.memory.estimate import Workload, estimate
from lora_runner.pack.options import PackOptions
from lora_runner.pack.pack import MicroBatch, Pack
from tests.lora_runner.plain_models import block_of, figures, plain_nf4

TINY = Callable[..., Path]


@pytest.fixture
def copy(tiny_model: TINY, tmp_path: Path) -> Path:
    """A model folder to damage."""
    return Path(shutil.copytree(tiny_model("llama"), tmp_path / "model"))


def edit_config(folder: Path, **changes: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


# --- what is refused ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["/no/such/folder", "./no-such-folder", "~/no-such-folder"])
def test_a_folder_that_does_not_exist(name: str) -> None:
    for refuse in (check_weights, load_base):
        with pytest.raises(ModelError, match="does not exist"):
            refuse(BaseSpec(model=name))


def test_a_hub_id_that_cannot_be_had() -> None:
    """Offline and not in the cache; the message has the first line of transformers' own."""
    for refuse in (load_base, count_parameters, load_tokenizer):
        with pytest.raises(ModelError, match="'nobody/nothing'"):
            refuse(BaseSpec(model="nobody/nothing"))
    with pytest.raises(ModelError, match="Repo id must be"):
        load_base(BaseSpec(model="one/too/many"))


def test_a_folder_without_a_configuration(copy: Path) -> None:
    (copy / "config.json").unlink()
    with pytest.raises(ModelError, match=r"has no config\.json"):
        check_weights(BaseSpec(model=str(copy)))


def test_a_folder_without_weights(copy: Path) -> None:
    (copy / "model.safetensors").unlink()
    with pytest.raises(ModelError, match=r"has no weights \(\*\.safetensors\)$"):
        load_base(BaseSpec(model=str(copy)))


def test_pickled_weights_are_not_read(copy: Path) -> None:
    (copy / "model.safetensors").unlink()
    torch.save({}, copy / "pytorch_model.bin")
    with pytest.raises(
        ModelError, match=r"pytorch_model\.bin is a pickle and is not read, convert it to safetensors"
    ):
        load_base(BaseSpec(model=str(copy)))


def test_a_pickle_beside_other_safetensors_is_not_read(copy: Path) -> None:
    """For example a saved adapter: transformers would fall back to the pickle."""
    torch.save(AutoModelForCausalLM.from_pretrained(copy).state_dict(), copy / "pytorch_model.bin")
    (copy / "model.safetensors").rename(copy / "adapter_model.safetensors")
    with pytest.raises(ModelError, match="cannot be loaded"):
        load_base(BaseSpec(model=str(copy)))


def damaged_configuration(copy: Path) -> None:
    (copy / "config.json").write_text("{")


def unknown_architecture(copy: Path) -> None:
    edit_config(copy, model_type="nonsense")


def no_causal_model(copy: Path) -> None:
    edit_config(copy, model_type="vit", architectures=["ViTModel"])


def truncated_weights(copy: Path) -> None:
    weights = copy / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])


def missing_shard(copy: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(copy)
    (copy / "model.safetensors").unlink()
    model.save_pretrained(copy, max_shard_size="100KB")
    sorted(copy.glob("model-*.safetensors"))[1].unlink()


def missing_layers(copy: Path) -> None:
    edit_config(copy, num_hidden_layers=3)


def other_shapes(copy: Path) -> None:
    edit_config(copy, intermediate_size=96)


def no_tokenizer(copy: Path) -> None:
    for path in copy.glob("tokenizer*"):
        path.unlink()


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (damaged_configuration, "not a valid JSON file"),
        (unknown_architecture, "nonsense"),
        (no_causal_model, "type .vit., which holds no language model"),
        (truncated_weights, "deserializing header"),
        (missing_shard, "model-00002-of"),
        (missing_layers, r"lacks 9 of the weights .* such as model\.layers\.2\."),
        (other_shapes, r"gate_proj of shape \(128, 64\), its config\.json asks for \(96, 64\)"),
        (no_tokenizer, "no tokenizer can be loaded"),
    ],
)
def test_damage_is_an_error_with_its_reason(copy: Path, damage: Callable[[Path], None], reason: str) -> None:
    damage(copy)
    with pytest.raises(ModelError, match=reason) as caught:
        load_base(BaseSpec(model=str(copy)))
    assert str(copy) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert isinstance(caught.value, RunnerError)


def test_a_models_own_code_does_not_run_unless_the_user_says_so(copy: Path, tmp_path: Path) -> None:
    witness = tmp_path / "ran"
    edit_config(copy, model_type="mine", auto_map={"AutoConfig": "own.C", "AutoModelForCausalLM": "own.M"})
    (copy / "own.py").write_text(f"open({str(witness)!r}, 'w').close()\nclass C: pass\nclass M: pass\n")
    assert BaseSpec(model="x").trust_remote_code is False
    for refuse in (load_base, count_parameters):
        with pytest.raises(ModelError):
            refuse(BaseSpec(model=str(copy)))
    load_tokenizer(BaseSpec(model=str(copy)))  # has no code of its own, and needs none
    assert not witness.exists()


# --- what is loaded -----------------------------------------------------------------------------------


def test_the_base_is_frozen_nf4_with_double_quantization(tiny_model: TINY) -> None:
    base = load_base(BaseSpec(model=str(tiny_model("llama"))))
    layers = {name: m for name, m in base.model.named_modules() if isinstance(m, Linear4bit)}
    assert len(layers) == 2 * 7
    for layer in layers.values():
        state = layer.weight.quant_state
        assert layer.weight.dtype == torch.uint8
        assert (state.quant_type, state.blocksize, state.nested) == ("nf4", 64, True)
        assert layer.compute_dtype == torch.float32
    assert base.model.lm_head.weight.dtype == torch.float32
    assert not any(p.requires_grad for p in base.model.parameters())
    assert not base.model.training
    assert base.model.config.use_cache is False
    plain = load_base(BaseSpec(model=str(tiny_model("llama")), quantization="none"))
    assert not any(isinstance(m, Linear4bit) for m in plain.model.modules())


@pytest.mark.parametrize(
    ("kind", "config"),
    [
        ("llama", {"tie_word_embeddings": False}),
        ("llama", {"tie_word_embeddings": True}),
        ("qwen2", {}),
        ("gemma2", {}),
        ("gpt2", {}),
        ("bloom", {}),
    ],
)
def test_parameters_are_counted_without_weights(tiny_model: TINY, kind: str, config: dict[str, Any]) -> None:
    spec = BaseSpec(model=str(tiny_model(kind, **config)))
    loaded = AutoModelForCausalLM.from_pretrained(spec.model)
    assert count_parameters(spec) == sum(p.numel() for p in loaded.parameters())
    assert load_base(spec).num_parameters == count_parameters(spec)
    assert {p.device.type for p in meta_model(spec).parameters()} == {"meta"}


def one_step(pack: Pack) -> tuple[float, float]:
    """(loss, gradient norm) of one step of a seat."""
    config = TrialConfig(
        learning_rate=1e-3, embedding_learning_rate=1e-3, max_steps=3, lora_r=4, lora_alpha=8
    )
    seat = pack.new_seat(config)
    ids = torch.arange(2, 26).reshape(2, 12)
    block = block_of(ids, ids)
    for _ in range(2):
        stats = pack.train_step({seat: MicroBatch(block, 24, 22)})[seat]
    return figures(stats)


def test_bfloat16_runs_on_a_cpu(tiny_model: TINY) -> None:
    spec = BaseSpec(model=str(tiny_model("llama")), compute_dtype="bfloat16")
    base = load_base(spec)
    assert base.compute_dtype == base.model.lm_head.weight.dtype == torch.bfloat16
    pack = Pack(base, PackOptions(train_embeddings=True))
    assert pack.layout == "end_to_end", pack.layout_reason
    narrow = one_step(pack)
    wide = one_step(Pack(load_base(BaseSpec(model=spec.model)), PackOptions(train_embeddings=True)))
    assert narrow == pytest.approx(wide, rel=3e-2)
    assert narrow != wide


def test_layers_that_blocks_of_64_do_not_divide(tiny_model: TINY) -> None:
    folder = tiny_model("llama", hidden_size=40, head_dim=10, intermediate_size=100)
    pack = Pack(load_base(BaseSpec(model=str(folder))), PackOptions())
    plain = plain_nf4(folder).train()
    ids = torch.arange(2, 26).reshape(2, 12)
    with torch.no_grad():
        expected = float(plain(input_ids=ids, labels=ids).loss)
    block = block_of(ids, ids)
    assert pack.evaluate([None], [block]) == pytest.approx([expected], rel=1e-6)
    assert all(torch.isfinite(torch.tensor(one_step(pack))))


def test_a_bases_own_dropout_sleeps_when_activations_are_computed_again(tiny_model: TINY) -> None:
    """transformers checkpoints only in training mode, and OPT keeps dropout rates in attributes of layers."""
    spec = BaseSpec(model=str(tiny_model("opt")), quantization="none")
    plain, checkpointing = (
        Pack(load_base(spec), PackOptions(target_modules=("q_proj", "fc1"), gradient_checkpointing=on))
        for on in (False, True)
    )
    layers = [m for m in checkpointing.model.modules() if hasattr(m, "gradient_checkpointing")]
    assert layers
    assert all(module.training for module in layers)
    assert one_step(checkpointing) == pytest.approx(one_step(plain), rel=1e-5)


# --- layers by name -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def structure(tiny_model: TINY) -> Any:
    return meta_model(BaseSpec(model=str(tiny_model("llama"))))


def test_targets_are_matched_by_pefts_rules(structure: Any) -> None:
    every = find_target_modules(structure, "all-linear")
    assert len(every) == 2 * 7
    assert "lm_head" not in every
    assert find_target_modules(structure, ("v_proj", "q_proj")) == [
        f"model.layers.{layer}.self_attn.{side}_proj" for layer in (0, 1) for side in "qv"
    ]
    assert find_target_modules(structure, ("layers.1.mlp.up_proj", "lm_head")) == [
        "model.layers.1.mlp.up_proj",
        "lm_head",
    ]
    assert find_target_modules(structure, r".*\.0\.self_attn\.[qk]_proj") == [
        "model.layers.0.self_attn.q_proj",
        "model.layers.0.self_attn.k_proj",
    ]


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        (
            ("q_proj", "v_prj"),
            r"entry 'v_prj' matches no linear layer\. Did you mean 'v_proj'\? Known: down_proj, .*lm_head",
        ),
        (("zzz",), r"entry 'zzz' matches no linear layer\. Known: "),
        (("proj",), r"entry 'proj' matches no linear layer"),  # whole components only
        (("embed_tokens",), "entry 'embed_tokens' matches no linear layer"),
        ((), "target_modules is empty"),
        ("layers", "matches no linear layer's full name"),
        ("q_proj", r"For every layer of that name, write \[q_proj\]"),
        ("((", "is not a regular expression"),
    ],
)
def test_targets_that_match_nothing_are_an_error(structure: Any, targets: Any, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        find_target_modules(structure, targets)


def test_a_model_whose_layers_are_not_linear(tiny_model: TINY) -> None:
    """GPT-2's transposed layers become ordinary ones only when they are quantized."""
    spec = BaseSpec(model=str(tiny_model("gpt2")))
    assert len(find_target_modules(meta_model(spec), "all-linear")) == 2 * 4
    assert Pack(load_base(spec), PackOptions()).target_names == tuple(
        find_target_modules(meta_model(spec), "all-linear")
    )
    with pytest.raises(ModelError, match=r"c_attn keeps its weight transposed \(Conv1D\)"):
        Pack(load_base(BaseSpec(model=spec.model, quantization="none")), PackOptions())
    with pytest.raises(ModelError, match="the model has no linear layer"):
        find_target_modules(torch.nn.Embedding(3, 3), "all-linear")


def test_layers_trained_in_full(structure: Any, tiny_model: TINY) -> None:
    both = ("model.embed_tokens", "lm_head")
    assert find_modules_to_save(structure, False).names == ()
    assert find_modules_to_save(structure, True).names == both
    assert find_modules_to_save(structure, ("lm_head",)).names == ("lm_head",)
    assert not find_modules_to_save(structure, True).tied
    tied = meta_model(BaseSpec(model=str(tiny_model("llama", tie_word_embeddings=True))))
    for wanted in (True, ("lm_head",), ("embed_tokens",)):
        assert (find_modules_to_save(tied, wanted).names, find_modules_to_save(tied, wanted).tied) == (
            both,
            True,
        )
    for unknown in (("embed_token",), ("lm_head", "norm")):
        with pytest.raises(
            ModelError, match=f"train_embeddings knows embed_tokens and lm_head, got {unknown[-1]}"
        ):
            find_modules_to_save(structure, unknown)


def test_a_layer_is_trained_in_one_way_only(tiny_model: TINY) -> None:
    base = load_base(BaseSpec(model=str(tiny_model("llama"))))
    with pytest.raises(ModelError, match="lm_head cannot be trained in full"):
        Pack(base, PackOptions(target_modules=("q_proj", "lm_head"), train_embeddings=True))


def test_lora_on_the_output_layer_when_it_is_asked_for(tiny_model: TINY) -> None:
    pack = Pack(load_base(BaseSpec(model=str(tiny_model("llama")))), PackOptions(target_modules=("lm_head",)))
    assert pack.layout == "end_to_end", pack.layout_reason
    assert pack.target_names == ("lm_head",)
    seat = pack.new_seat(TrialConfig(learning_rate=1e-2, lr_scheduler_type="constant", max_steps=5, lora_r=4))
    ids = torch.arange(2, 26).reshape(2, 12)
    block = block_of(ids, ids)
    losses = [pack.train_step({seat: MicroBatch(block, 24, 22)})[seat].read().loss for _ in range(5)]
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < losses[0] - 0.05


# --- what is said meanwhile ---------------------------------------------------------------------------


def test_loading_is_silent_where_nobody_watches(tiny_model: TINY, capfd: pytest.CaptureFixture[str]) -> None:
    assert transformers_logging.is_progress_bar_enabled()
    load_base(BaseSpec(model=str(tiny_model("llama"))))
    out, err = capfd.readouterr()
    assert (out, err) == ("", "")
    assert transformers_logging.is_progress_bar_enabled()  # as it was


def test_the_absent_cpu_kernel_is_not_mentioned(caplog: pytest.LogCaptureFixture) -> None:
    ops.logger.warning(
        "Failed to load CPU gemm_4bit_forward from kernels-community: %s.", "No module named 'kernels'"
    )
    ops.logger.warning("other news")
    assert caplog.messages == ["other news"]


def test_an_estimate_needs_no_weights(copy: Path) -> None:
    (copy / "model.safetensors").unlink()
    workload = Workload(lora_r=4, train_embeddings=True, batch_size=1, length=8)
    found = estimate(BaseSpec(model=str(copy)), workload)
    assert found.total(1) > 0
