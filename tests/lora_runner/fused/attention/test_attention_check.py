"""Which models' attention the fused kernel computes, and the reason for the others."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from copy import deepcopy
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import (
    AutoModelForCausalLM,
    DeepseekV3Config,
    Gemma2Config,
    GptOssConfig,
    Llama4TextConfig,
    LlamaConfig,
    MistralConfig,
)
from transformers import masking_utils as masks
from transformers.models.gemma2 import modeling_gemma2

from lora_runner.fused.attention.check import check_attention
from lora_runner.fused.attention.visible_window import visible_window
from lora_runner.fused.compute_path import NotFusedError
from lora_runner.layers.attention import (
    PACK_ATTENTION,
    AttentionImplementation,
    LengthBuckets,
    attend_in_buckets,
)

LENGTHS = ((4, 9), (7,))
SIZES: dict[str, Any] = {
    "vocab_size": 32,
    "hidden_size": 32,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
}


def probe_of(config: Any) -> Callable[[], object]:
    """One pass of a new model in the end-to-end layout."""
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(deepcopy(config)).eval()
    implementation = AttentionImplementation(model.config._attn_implementation, "cpu")
    total = sum(map(sum, LENGTHS))
    positions = torch.cat([torch.arange(length) for block in LENGTHS for length in block])

    def probe() -> None:
        model.config._attn_implementation = PACK_ATTENTION
        buckets = LengthBuckets.of(LENGTHS, mix_blocks=False)
        with torch.no_grad(), attend_in_buckets(buckets, implementation):
            model.base_model(
                input_ids=torch.randint(32, (1, total)),
                position_ids=positions[None],
                attention_mask=torch.ones(1, total, dtype=torch.int64),
            )

    return probe


FUSED = {
    "causal": (LlamaConfig(**SIZES), "2 layers causal"),
    "window": (MistralConfig(**SIZES, sliding_window=6), "2 layers in a window of 6"),
    "soft cap": (
        Gemma2Config(**SIZES, sliding_window=6, attn_logit_softcapping=30.0),
        "1 layers causal with a soft cap of 30, 1 layers in a window of 6 with a soft cap of 30",
    ),
}


@pytest.mark.parametrize("kind", FUSED)
def test_attention_that_is_fused(kind: str) -> None:
    config, expected = FUSED[kind]
    assert check_attention(probe_of(config)) == expected


NOT_FUSED = {
    "chunked": (
        Llama4TextConfig(
            **SIZES,
            attention_chunk_size=4,
            num_local_experts=1,
            pad_token_id=0,
            layer_types=["chunked_attention", "full_attention"],
            moe_layers=[],
            intermediate_size_mlp=32,
        ),
        "its mask",
    ),
    "sinks": (
        GptOssConfig(**SIZES, num_local_experts=2, num_experts_per_tok=1),
        "its attention takes 's_aux'",
    ),
    "other head size of values": (
        DeepseekV3Config(
            **{**SIZES, "num_key_value_heads": 4},
            n_routed_experts=8,
            n_group=1,
            topk_group=1,
            num_experts_per_tok=1,
            first_k_dense_replace=2,
            q_lora_rank=8,
            kv_lora_rank=8,
            qk_rope_head_dim=8,
            qk_nope_head_dim=8,
            v_head_dim=8,
        ),
        "the values of its attention have another head size than the keys",
    ),
}


@pytest.mark.parametrize("kind", NOT_FUSED)
def test_attention_that_is_not_fused(kind: str) -> None:
    config, reason = NOT_FUSED[kind]
    with pytest.raises(NotFusedError, match=reason):
        check_attention(probe_of(config))


def test_attention_that_does_not_ask_for_a_mask() -> None:
    with pytest.raises(NotFusedError, match="does not use transformers' attention interface"):
        check_attention(lambda: None)


def test_an_eager_function_that_does_more_than_its_arguments_say(monkeypatch: pytest.MonkeyPatch) -> None:
    """A sink that is a parameter of the module, read without being an argument."""
    plain = modeling_gemma2.eager_attention_forward

    def with_a_sink(*given: Any, **arguments: Any) -> tuple[Tensor, Any]:
        out, weights = plain(*given, **arguments)
        return out * 0.9, weights

    monkeypatch.setattr(modeling_gemma2, "eager_attention_forward", with_a_sink)
    with pytest.raises(NotFusedError, match=r"differs from plain attention by 1\.\de-01"):
        check_attention(probe_of(FUSED["soft cap"][0]))


WINDOWS = {
    "causal": (masks.causal_mask_function, 0),
    "window of 1": (masks.sliding_window_causal_mask_function(1), 1),
    "window of 6": (masks.sliding_window_causal_mask_function(6), 6),
    "window of 4096": (masks.sliding_window_causal_mask_function(4096), 4096),
    "two windows": (
        masks.and_masks(
            masks.sliding_window_causal_mask_function(300), masks.sliding_window_causal_mask_function(70)
        ),
        70,
    ),
}


@pytest.mark.parametrize("kind", WINDOWS)
def test_masks_that_are_windows(kind: str) -> None:
    mask_function, window = WINDOWS[kind]
    assert visible_window(mask_function) == window


def chunks(size: int) -> Callable[..., Tensor]:
    return masks.and_masks(lambda b, h, q, k: q // size == k // size, masks.causal_mask_function)


OTHERS: dict[str, tuple[Callable[..., Any], str]] = {
    "bidirectional": (masks.bidirectional_mask_function, "neither causal nor a sliding window"),
    "bidirectional window": (
        masks.sliding_window_bidirectional_mask_function(8),
        "neither causal nor a sliding window",
    ),
    "chunks of 64": (chunks(64), "neither causal nor a sliding window"),
    # The last of 2^20 tokens is the last of its chunk, as in a window of 8192.
    "chunks of 8192": (chunks(8192), "neither causal nor a sliding window"),
    "prefix": (
        masks.or_masks(masks.causal_mask_function, lambda b, h, q, k: k < 5),
        "neither causal nor a sliding window",
    ),
    "window and the first token": (
        masks.or_masks(
            masks.sliding_window_causal_mask_function(8),
            masks.and_masks(masks.causal_mask_function, lambda b, h, q, k: k == 0),
        ),
        "neither causal nor a sliding window",
    ),
    "nothing": (lambda b, h, q, k: q < k, "neither causal nor a sliding window"),
    "packed": (masks.packed_sequence_mask_function(torch.zeros(1, 8)), "depends on a Tensor"),
    "of single indices": (lambda b, h, q, k: k <= q if k > 2 else False, "cannot be evaluated"),
}


@pytest.mark.parametrize("kind", OTHERS)
def test_masks_that_are_not_windows(kind: str) -> None:
    mask_function, reason = OTHERS[kind]
    with pytest.raises(NotFusedError, match=reason):
        visible_window(mask_function)


LOOKS = Counter[int]()


def counting_window(window: int) -> Callable[..., Tensor]:
    inner = masks.sliding_window_causal_mask_function(window)

    def mask(b: Tensor, h: Tensor, q: Tensor, k: Tensor) -> Tensor:
        LOOKS[window] += 1
        return inner(b, h, q, k)

    return mask


def test_a_mask_is_looked_at_once() -> None:
    """transformers makes a new function for each pass; only other constants make it another mask."""
    assert [visible_window(counting_window(window)) for window in (3, 3, 5)] == [3, 3, 5]
    looks = LOOKS.copy()
    assert [visible_window(counting_window(window)) for window in (5, 3)] == [5, 3]
    assert looks == LOOKS
