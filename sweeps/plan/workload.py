"""The largest workload that space and data allow a seat, for which memory is planned."""

from __future__ import annotations

import math
from typing import Any

from files_and_text.yaml_lines import ProblemAt
from lora_runner.data import DataBundle, TokenizedSet
from lora_runner.memory.sizes import Workload
from lora_runner.metric.scores import MetricSpec
from search_spaces import SearchSpace
from sweeps.config import SweepConfig
from sweeps.errors import ConfigError

MAX_MICRO_BATCH_TOKENS = 2**24
"""One activation of an 8B model would fill a GPU; a larger micro-batch is a typing error."""


def workload_of(
    config: SweepConfig,
    space: SearchSpace,
    data: DataBundle,
    token_ids: tuple[int, ...],
    metric: MetricSpec | None,
    problem_at: ProblemAt,
) -> Workload:
    """The largest rank, dropout and batch size of the space, on the longest examples.

    `token_ids` are those of `train_embeddings`. Raises ConfigError for micro-batches that no memory holds.
    """
    training = config.training
    batch_size = int(_largest(space, "per_device_train_batch_size", training.per_device_train_batch_size))
    eval_batch_size = training.per_device_eval_batch_size
    workload = Workload(
        target_modules=config.lora.target_modules,
        train_embeddings=config.embedding_modules or False,
        trainable_token_indices=token_ids,
        lora_r=int(_largest(space, "lora_r", config.lora.r)),
        lora_dropout=_largest(space, "lora_dropout", config.lora.dropout),
        batch_size=batch_size,
        length=_longest(data.train, batch_size),
        eval_batch_size=eval_batch_size,
        eval_length=max(_longest(data.eval, eval_batch_size), 0 if metric is None else metric.prompt_length),
        **_generation(data, metric, eval_batch_size),
        gradient_checkpointing=training.gradient_checkpointing,
        graphs=training.graphs,
        embedding_optimizer_bits=training.embedding_optimizer_bits,
    )
    _check_micro_batches(workload, problem_at)
    return workload


def _generation(data: DataBundle, metric: MetricSpec | None, batch_size: int) -> dict[str, Any]:
    """What the metric generates on a seat: how many answers at once, and lengths of prompts and answers."""
    if metric is None or not metric.max_new_tokens:
        return {}
    longest = max((len(prompt.ids) for prompt in data.eval_prompts), default=metric.prompt_length)
    count = metric.num_prompts if metric.is_task else len(data.eval_prompts)
    return {
        "num_prompts": min(count, batch_size),
        "prompt_length": longest,
        "max_new_tokens": metric.max_new_tokens,
    }


def _longest(examples: TokenizedSet, batch_size: int) -> int:
    """Mean tokens per example of the longest possible batch: memory follows the sum of lengths."""
    longest = sorted(len(example.input_ids) for example in examples.examples)[-batch_size:]
    return math.ceil(sum(longest) / len(longest))


def _check_micro_batches(workload: Workload, problem_at: ProblemAt) -> None:
    sizes = {
        "per_device_train_batch_size": (workload.batch_size, workload.length),
        "per_device_eval_batch_size": (workload.eval_batch_size, workload.eval_length),
    }
    problems = [
        problem_at(
            ("training", key),
            f"training.{key} x the tokens of the longest examples must be at most "
            f"{MAX_MICRO_BATCH_TOKENS:,}; got {batch_size:,} x {length:,}",
        )
        for key, (batch_size, length) in sizes.items()
        if batch_size * length > MAX_MICRO_BATCH_TOKENS
    ]
    if problems:
        raise ConfigError(problems)


def _largest(space: SearchSpace, name: str, default: float) -> float:
    return max(space[name].ends()) if name in space else default
