"""A little data with something to learn, packs on tiny models, and the plain loop's view of a loss."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from lora_runner.data import DataBundle, TokenizedExample, TokenizedSet
from lora_runner.models import BaseSpec, load_base
from lora_runner.pack import Pack, PackOptions


def counting(start: int, stride: int, length: int, prompt: int) -> TokenizedExample:
    """Token ids that count up by `stride`; the first `prompt` tokens carry no loss."""
    ids = [2 + (start + stride * i) % 60 for i in range(length)]
    return TokenizedExample(input_ids=ids, labels=[-100] * prompt + ids[prompt:])


@pytest.fixture(scope="session")
def bundle() -> DataBundle:
    """Sequences of unlike lengths and prompts: a mean of batch means is not the token-weighted mean."""
    train = [counting(7 * i, 1 + i % 3, 9 + i % 8, 1 + i % 5) for i in range(24)]
    held_out = [counting(5 * i + 3, 1 + i % 3, 8 + 2 * (i % 6), 2 + i % 3) for i in range(10)]
    return DataBundle(
        train=TokenizedSet.of(train, source="train"),
        eval=TokenizedSet.of(held_out, source="eval"),
        sample_prompts=tuple(tuple(e.input_ids[:3]) for e in held_out[:2]),
        format="text",
    )


@pytest.fixture(scope="session")
def new_pack(tiny_model: Callable[..., Path]) -> Callable[..., Pack]:
    """`new_pack(kind, target_modules=..., spec={...}, cls=Pack, **model_config)` on a base loaded afresh."""

    def make(
        kind: str = "llama",
        *,
        target_modules: str | tuple[str, ...] = "all-linear",
        train_embeddings: bool | tuple[str, ...] = True,
        spec: dict[str, Any] | None = None,
        cls: type[Pack] = Pack,
        **config: Any,
    ) -> Pack:
        base = load_base(BaseSpec(model=str(tiny_model(kind, **config)), **(spec or {})))
        options = PackOptions(
            target_modules=target_modules,
            train_embeddings=train_embeddings,
            resident_weights=True,  # the same numbers in less time
        )
        return cls(base, options)

    return make


@pytest.fixture(scope="session")
def plain_nll() -> Callable[..., float]:
    """`plain_nll(model, set)`: token-weighted NLL by the model alone, one sequence at a time and unpadded."""

    def measure(model: nn.Module, examples: TokenizedSet) -> float:
        total, count = 0.0, 0
        with torch.no_grad():
            for example in examples.examples:
                ids, labels = torch.tensor([example.input_ids]), torch.tensor(example.labels)[1:]
                logits = model(input_ids=ids).logits[0, :-1].float()
                total += float(
                    nn.functional.cross_entropy(logits, labels, ignore_index=-100, reduction="sum")
                )
                count += int((labels != -100).sum())
        return total / count

    return measure
