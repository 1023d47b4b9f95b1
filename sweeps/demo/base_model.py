"""The demo's base model: a byte-level BPE tokenizer and a small Llama, pretrained on first use and cached.

Takes about a minute on 2 cores. The number of steps is fixed, not the time: two builds on one machine with
the same number of threads give the same weights.
"""

from __future__ import annotations

import hashlib
import json
import platform
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    get_cosine_schedule_with_warmup,
)

from files_and_text.user_cache import user_cache
from sweeps.demo.library_sources import library_root, pretraining_text, source_files
from sweeps.demo.model_cache import build_once

END_TOKEN = "<|end|>"
PAD_TOKEN = "<|pad|>"
BUILD_REVISION = 1
"""To be raised when a change of this code changes the weights of an unchanged recipe."""

Progress = Callable[[str, int, int], None]
"""Called as (stage, done, total); stages are "tokenizer" and "pretraining"."""


@dataclass(frozen=True, kw_only=True)
class BaseRecipe:
    """Everything that determines the weights, besides Python's version and the machine."""

    vocab_size: int = 4096
    """Including the two special tokens; at least 258."""
    hidden_size: int = 256
    """Width. A multiple of 64, as is intermediate_size: NF4 quantizes blocks of 64 along the input."""
    intermediate_size: int = 704
    """Width of the MLP."""
    num_hidden_layers: int = 4
    num_attention_heads: int = 4
    num_key_value_heads: int = 2
    max_position_embeddings: int = 512
    sequence_length: int = 128
    """Tokens per pretraining sequence."""
    batch_size: int = 4
    """Sequences per step."""
    max_steps: int = 340
    learning_rate: float = 1.5e-3
    warmup_steps: int = 20
    weight_decay: float = 0.1
    held_out_every: int = 20
    """One sequence in this many is held out for evaluation."""
    max_held_out: int = 128
    """Most held-out sequences that are evaluated."""
    seed: int = 20


@dataclass(frozen=True, kw_only=True)
class BuildRecord:
    """What a build measured; losses in nats per token."""

    num_parameters: int
    num_train_tokens: int
    unigram_loss: float
    """Held-out loss of a model that always predicts the token frequencies of the training text."""
    first_train_loss: float
    last_train_loss: float
    """Mean of the last 10 steps."""
    held_out_loss: float
    wall_seconds: float


def base_folder(cache: Path | None = None, *, recipe: BaseRecipe | None = None) -> Path:
    """The folder of the base for this recipe and this Python, whether or not it exists."""
    identity = {
        "recipe": asdict(recipe or BaseRecipe()),
        "python": platform.python_version(),
        "revision": BUILD_REVISION,
    }
    key = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:16]
    return (cache or user_cache()) / f"base-{key}"


def build_base(
    cache: Path | None = None,
    *,
    recipe: BaseRecipe | None = None,
    progress: Progress | None = None,
    source_root: Path | None = None,
) -> Path:
    """The folder of the demo's base model, built on first use.

    It holds config.json, model.safetensors, the tokenizer's files and base.json (recipe, losses, time). Of
    two processes one builds and the other waits. `source_root` replaces the standard library as the text and,
    unlike the recipe, is not part of the folder's name. Raises FileNotFoundError when this Python has no
    library sources.
    """
    chosen, say = recipe or BaseRecipe(), progress or (lambda stage, done, total: None)

    def fill(work: Path) -> dict[str, Any]:
        return {"recipe": asdict(chosen), "record": asdict(_build_into(work, chosen, say, source_root))}

    return build_once(base_folder(cache, recipe=chosen), fill)


def _build_into(work: Path, recipe: BaseRecipe, progress: Progress, source_root: Path | None) -> BuildRecord:
    started = time.perf_counter()
    progress("tokenizer", 0, 1)
    # Without the docstrings of functions, which are the fine-tuning data (see library_sources.py).
    texts = [pretraining_text(source) for source in source_files(source_root or library_root())]
    tokenizer = _train_tokenizer(texts, recipe)
    train, held_out = _sequences(texts, tokenizer, recipe)
    progress("tokenizer", 1, 1)

    with torch.random.fork_rng(devices=[]), torch.device("cpu"):
        torch.manual_seed(recipe.seed)
        model = LlamaForCausalLM(_model_config(recipe, tokenizer))
        losses = _pretrain(model, train, recipe, progress)
        model.eval()
        model.save_pretrained(work)
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=END_TOKEN,
        pad_token=PAD_TOKEN,
        model_max_length=recipe.max_position_embeddings,
        clean_up_tokenization_spaces=False,
    ).save_pretrained(work)
    return BuildRecord(
        num_parameters=model.num_parameters(),
        num_train_tokens=len(losses) * recipe.batch_size * recipe.sequence_length,
        unigram_loss=_unigram_loss(train, held_out, recipe.vocab_size),
        first_train_loss=losses[0],
        last_train_loss=sum(losses[-10:]) / len(losses[-10:]),
        held_out_loss=_mean_loss(model, held_out),
        wall_seconds=round(time.perf_counter() - started, 1),
    )


def _train_tokenizer(texts: list[str], recipe: BaseRecipe) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=recipe.vocab_size,
        special_tokens=[END_TOKEN, PAD_TOKEN],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),  # every byte, so that any text can be tokenized
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def _sequences(
    texts: list[str], tokenizer: Tokenizer, recipe: BaseRecipe
) -> tuple[torch.Tensor, torch.Tensor]:
    """Training sequences in the order of use, and held-out ones; each (n, sequence_length)."""
    end = tokenizer.encode(END_TOKEN).ids
    ids: list[int] = []
    for encoding in tokenizer.encode_batch_fast(texts):
        ids += encoding.ids + end
    count = len(ids) // recipe.sequence_length
    packed = torch.tensor(ids[: count * recipe.sequence_length]).view(count, recipe.sequence_length)
    is_held_out = torch.arange(count) % recipe.held_out_every == 0
    generator = torch.Generator().manual_seed(recipe.seed)
    train = packed[~is_held_out]
    if len(train) < recipe.batch_size:
        raise ValueError(
            f"Pretraining needs at least one batch of {recipe.batch_size} sequences,"
            f" and the text gives {len(train)}."
        )
    held_out = packed[is_held_out]
    return (
        train[torch.randperm(len(train), generator=generator)],
        held_out[torch.randperm(len(held_out), generator=generator)][: recipe.max_held_out],
    )


def _model_config(recipe: BaseRecipe, tokenizer: Tokenizer) -> LlamaConfig:
    end = tokenizer.token_to_id(END_TOKEN)
    return LlamaConfig(
        vocab_size=recipe.vocab_size,
        hidden_size=recipe.hidden_size,
        intermediate_size=recipe.intermediate_size,
        num_hidden_layers=recipe.num_hidden_layers,
        num_attention_heads=recipe.num_attention_heads,
        num_key_value_heads=recipe.num_key_value_heads,
        max_position_embeddings=recipe.max_position_embeddings,
        tie_word_embeddings=False,  # so that embeddings and output head can be trained separately
        bos_token_id=None,
        eos_token_id=end,
        pad_token_id=tokenizer.token_to_id(PAD_TOKEN),
    )


def _pretrain(
    model: LlamaForCausalLM, train: torch.Tensor, recipe: BaseRecipe, progress: Progress
) -> list[float]:
    """Train in place; returns the loss of every step. In fp32: bf16 is slow on CPUs without bf16
    instructions."""
    matrices: list[torch.nn.Parameter] = [weight for weight in model.parameters() if weight.ndim > 1]
    norms: list[torch.nn.Parameter] = [weight for weight in model.parameters() if weight.ndim == 1]
    groups: list[dict[str, Any]] = [{"params": matrices}, {"params": norms, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(
        groups,
        lr=recipe.learning_rate,
        betas=(0.9, 0.95),
        weight_decay=recipe.weight_decay,
        fused=True,
    )
    schedule = get_cosine_schedule_with_warmup(optimizer, recipe.warmup_steps, recipe.max_steps)
    model.train()
    losses = []
    for step in range(recipe.max_steps):
        rows = torch.arange(step * recipe.batch_size, (step + 1) * recipe.batch_size) % len(train)
        batch = train[rows]  # (batch_size, sequence_length)
        loss = model(input_ids=batch, labels=batch, use_cache=False).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        losses.append(loss.item())
        progress("pretraining", step + 1, recipe.max_steps)
    return losses


@torch.no_grad()
def _mean_loss(model: LlamaForCausalLM, sequences: torch.Tensor) -> float:
    """Nats per predicted token; all sequences have equally many, so batches are weighted by their rows."""
    total = 0.0
    for batch in sequences.split(16):
        total += model(input_ids=batch, labels=batch, use_cache=False).loss.item() * len(batch)
    return total / len(sequences)


def _unigram_loss(train: torch.Tensor, held_out: torch.Tensor, vocab_size: int) -> float:
    counts = torch.bincount(train.flatten(), minlength=vocab_size).double() + 1.0
    return -(counts / counts.sum()).log()[held_out[:, 1:]].mean().item()
