"""Tiny configurations of many of transformers' architectures, also multimodal ones."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import transformers

_WORDS = {"vocab_size": 256, "bos_token_id": None, "eos_token_id": 1, "pad_token_id": 1}
_USUAL = {
    **_WORDS,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
}
_HEADS = {**_USUAL, "head_dim": 16}
_EXPERTS = {**_HEADS, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32}
_DELTA_NET = {
    "num_hidden_layers": 4,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_key_head_dim": 16,
    "linear_value_head_dim": 16,
}
_SIGHT = {"num_attention_heads": 2, "num_hidden_layers": 1, "image_size": 28, "patch_size": 14}


def _of(name: str, **settings: Any) -> Callable[[], Any]:
    return lambda: getattr(transformers, name)(**settings)


ARCHITECTURES: dict[str, Callable[[], Any]] = {
    # Decoders whose attention goes through transformers' interface.
    "Llama": _of("LlamaConfig", **_USUAL),
    "Mistral": _of("MistralConfig", **_USUAL, sliding_window=6),
    "Qwen2": _of("Qwen2Config", **_USUAL),
    "Qwen3": _of("Qwen3Config", **_HEADS),
    "Gemma 2": _of("Gemma2Config", **_HEADS, sliding_window=6),
    "Gemma 3": _of("Gemma3TextConfig", **_HEADS, sliding_window=6),
    "Phi": _of("PhiConfig", **_USUAL),
    "Phi-3": _of("Phi3Config", **_USUAL),
    "OLMo 2": _of("Olmo2Config", **_USUAL),
    "SmolLM3": _of("SmolLM3Config", **_USUAL),
    "Granite": _of("GraniteConfig", **_USUAL),
    "Cohere": _of("CohereConfig", **_USUAL),
    "StableLM": _of("StableLmConfig", **_USUAL),
    "GPT-NeoX": _of("GPTNeoXConfig", **{**_USUAL, "num_key_value_heads": 4}),
    "GPT-2": _of("GPT2Config", **_WORDS, n_embd=64, n_layer=2, n_head=4, n_positions=256),
    "OPT": _of("OPTConfig", **_USUAL, ffn_dim=128, word_embed_proj_dim=64),
    # Mixtures of experts.
    "Mixtral": _of("MixtralConfig", **_HEADS, num_local_experts=4, num_experts_per_tok=2),
    "Qwen2-MoE": _of("Qwen2MoeConfig", **_EXPERTS, shared_expert_intermediate_size=32),
    "Qwen3-MoE": _of("Qwen3MoeConfig", **_EXPERTS),
    "DeepSeek-V3": _of(
        "DeepseekV3Config",
        **{**_USUAL, "num_key_value_heads": 4},
        moe_intermediate_size=32,
        n_routed_experts=8,
        num_experts_per_tok=2,
        n_group=2,
        topk_group=1,
        q_lora_rank=16,
        kv_lora_rank=16,
        qk_rope_head_dim=8,
        qk_nope_head_dim=8,
        v_head_dim=16,
        first_k_dense_replace=1,
    ),
    "GPT-OSS": _of("GptOssConfig", **_HEADS, num_local_experts=4, num_experts_per_tok=2, sliding_window=8),
    "Llama 4 (text)": _of(
        "Llama4TextConfig", **_HEADS, intermediate_size_mlp=128, num_local_experts=2, num_experts_per_tok=1
    ),
    "Phi-3.5-MoE": _of("PhimoeConfig", **_USUAL, num_local_experts=4, num_experts_per_tok=2),
    "Granite-MoE": _of("GraniteMoeConfig", **_USUAL, num_local_experts=4, num_experts_per_tok=2),
    "OLMoE": _of("OlmoeConfig", **_USUAL, num_experts=4, num_experts_per_tok=2),
    # Own attention, state spaces and other recurrences.
    "Bloom": _of("BloomConfig", vocab_size=256, hidden_size=64, n_layer=2, n_head=4),
    "Falcon": _of(
        "FalconConfig",
        **{**_WORDS, "bos_token_id": 1},
        hidden_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
    ),
    "MPT": _of("MptConfig", vocab_size=256, d_model=64, n_layers=2, n_heads=4, max_seq_len=256),
    "GPT-J": _of("GPTJConfig", **_WORDS, n_embd=64, n_layer=2, n_head=4, rotary_dim=8),
    "Qwen3-Next": _of("Qwen3NextConfig", **{**_EXPERTS, **_DELTA_NET}, shared_expert_intermediate_size=32),
    "Qwen3.5": _of("Qwen3_5TextConfig", **{**_HEADS, **_DELTA_NET}),
    "RecurrentGemma": _of("RecurrentGemmaConfig", **{**_USUAL, "num_hidden_layers": 3}, lru_width=64),
    "Jamba": _of(
        "JambaConfig",
        **_USUAL,
        num_experts=2,
        use_mamba_kernels=False,
        attn_layer_period=2,
        attn_layer_offset=1,
        expert_layer_period=2,
        expert_layer_offset=1,
    ),
    "Mamba": _of("MambaConfig", vocab_size=256, hidden_size=64, num_hidden_layers=2, state_size=8),
    "Mamba-2": _of(
        "Mamba2Config",
        vocab_size=256,
        hidden_size=64,
        num_hidden_layers=2,
        state_size=8,
        num_heads=8,
        head_dim=16,
        n_groups=1,
    ),
    "RWKV": _of("RwkvConfig", vocab_size=256, hidden_size=64, num_hidden_layers=2, context_length=64),
    # Multimodal models.
    "Gemma 3 (multimodal)": _of(
        "Gemma3Config",
        text_config={**_HEADS, "sliding_window": 6},
        vision_config={**_SIGHT, "hidden_size": 32, "intermediate_size": 64},
        mm_tokens_per_image=4,
        image_token_index=9,
        boi_token_index=10,
        eoi_token_index=11,
    ),
    "Llama 4 (multimodal)": _of(
        "Llama4Config",
        text_config={
            **_HEADS,
            "intermediate_size_mlp": 128,
            "num_local_experts": 2,
            "num_experts_per_tok": 1,
        },
        vision_config={
            **_SIGHT,
            "hidden_size": 32,
            "intermediate_size": 128,
            "vision_output_dim": 32,
            "projector_input_dim": 32,
            "projector_output_dim": 32,
        },
        image_token_index=9,
    ),
    "Qwen2-VL": _of(
        "Qwen2VLConfig",
        text_config={
            **_USUAL,
            "rope_parameters": {"rope_type": "default", "mrope_section": [2, 3, 3], "rope_theta": 1e4},
        },
        vision_config={"depth": 1, "embed_dim": 32, "hidden_size": 64, "num_heads": 2, "patch_size": 14},
        image_token_id=9,
        video_token_id=10,
        vision_start_token_id=11,
        vision_end_token_id=12,
    ),
    "Qwen3-VL": _of(
        "Qwen3VLConfig",
        text_config={
            **_HEADS,
            "rope_parameters": {"rope_type": "default", "mrope_section": [2, 3, 3], "rope_theta": 1e4},
        },
        vision_config={
            "depth": 1,
            "hidden_size": 32,
            "intermediate_size": 64,
            "out_hidden_size": 64,
            "num_heads": 2,
            "patch_size": 14,
            "deepstack_visual_indexes": [0],
            "num_position_embeddings": 4,
        },
        image_token_id=9,
        video_token_id=10,
        vision_start_token_id=11,
        vision_end_token_id=12,
    ),
    "Mistral 3": _of(
        "Mistral3Config",
        text_config={**_HEADS, "model_type": "mistral"},
        vision_config={
            **_SIGHT,
            "model_type": "pixtral",
            "hidden_size": 32,
            "intermediate_size": 64,
            "head_dim": 16,
        },
        image_token_index=9,
    ),
    "LLaVA": _of(
        "LlavaConfig",
        text_config={**_USUAL, "model_type": "llama"},
        vision_config={
            **_SIGHT,
            "model_type": "clip_vision_model",
            "hidden_size": 32,
            "intermediate_size": 64,
        },
        image_token_index=9,
    ),
}
