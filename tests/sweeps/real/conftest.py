"""A tiny Llama as llama.cpp's converter would write it, and a folder of Python sources to measure on."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tokenizers.pre_tokenizers import ByteLevel
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM

TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
BYTES = sorted(ByteLevel.alphabet())
MERGED = ["ĠĠ", "ĠĠĠĠ"]
HEADS, KEY_VALUE_HEADS = 4, 2
NAMES = {
    "embed_tokens": "token_embd",
    "norm": "output_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}


@pytest.fixture(scope="session")
def tiny_llama() -> LlamaForCausalLM:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len([*SPECIAL, *BYTES, *MERGED]),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=HEADS,
        num_key_value_heads=KEY_VALUE_HEADS,
        max_position_embeddings=512,
        tie_word_embeddings=True,
        rms_norm_eps=1e-5,
        rope_theta=10000.0,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=2,
    )
    return LlamaForCausalLM(config).eval()


def as_llama_cpp(name: str, weight: Tensor) -> tuple[str, Tensor]:
    """The name and the rows that llama.cpp keeps: of queries and keys, the halves of a head interleaved."""
    inner, prefix = name.removeprefix("model.").removesuffix(".weight"), ""
    if inner.startswith("layers."):
        _, layer, inner = inner.split(".", 2)
        prefix = f"blk.{layer}."
    heads = {"self_attn.q_proj": HEADS, "self_attn.k_proj": KEY_VALUE_HEADS}.get(inner)
    if heads is not None:
        rows, columns = weight.shape
        halves = weight.view(heads, 2, rows // heads // 2, columns)
        weight = halves.transpose(1, 2).reshape(rows, columns)
    return f"{prefix}{NAMES[inner]}.weight", weight


@pytest.fixture(scope="session")
def gguf_file(tiny_llama: LlamaForCausalLM, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model in float32, with a byte-level tokenizer of the kind `smollm` that merges spaces."""
    gguf = pytest.importorskip("gguf", reason="the package gguf is not installed (extra `real`)")
    path: Path = tmp_path_factory.mktemp("gguf") / "Tiny-Llama.F32.gguf"
    config, writer = tiny_llama.config, gguf.GGUFWriter(path, "llama")
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KEY_VALUE_HEADS)
    writer.add_rope_freq_base(10000.0)
    writer.add_rope_dimension_count(config.hidden_size // HEADS)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_vocab_size(config.vocab_size)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list([*SPECIAL, *BYTES, *MERGED])
    writer.add_token_types([3] * len(SPECIAL) + [1] * len(BYTES + MERGED))
    writer.add_token_merges(["Ġ Ġ", "ĠĠ ĠĠ"])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    writer.add_pad_token_id(2)
    writer.add_chat_template(TEMPLATE)
    for name, weight in tiny_llama.state_dict().items():
        if name != "lm_head.weight":  # tied
            named, rows = as_llama_cpp(name, weight)
            writer.add_tensor(named, rows.contiguous().numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.fixture(scope="session")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Python files with some hundreds of words of documentation."""
    root = tmp_path_factory.mktemp("sources")
    for number in range(12):
        (root / f"wheel_{number:02}.py").write_text(
            f'"""Wheels of size {number}, and what turns them."""\n\n\n'
            f"def turn_{number}(wheel, by={number}):\n"
            f'    """Turn wheel number {number} forward by as many teeth.\n\n'
            f"    It stops at {number} teeth.\n"
            f'    """\n    return wheel.position + by\n'
        )
    return root
