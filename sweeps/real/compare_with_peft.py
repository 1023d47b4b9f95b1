"""Losses of this program and of plain transformers and peft: the same tokens, NF4 base and adapters."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from transformers import AutoModelForCausalLM, PreTrainedModel, get_scheduler

from lora_runner.adapters import save_adapter
from lora_runner.base.load_model import BaseSpec, load_base, nf4_config
from lora_runner.config import TrialConfig
from lora_runner.data import IGNORED, BatchPlan, DataBundle, TokenizedExample
from lora_runner.layout.pack_layout import Block
from lora_runner.pack.options import PackOptions
from lora_runner.pack.pack import MicroBatch, Pack

EVAL_BATCH_SIZE = 8
TOLERANCE = 1e-4
"""Relative difference allowed: both sides round in float32, in different orders."""


@dataclass(frozen=True)
class LossPair:
    """One loss from both programs, in nats per token."""

    name: str
    ours: float
    peft: float

    @property
    def difference(self) -> float:
        """Relative to peft's."""
        return abs(self.ours - self.peft) / abs(self.peft)


def evaluate_with_peft(spec: BaseSpec, adapter: Path, data: DataBundle) -> tuple[float, float]:
    """Losses on the evaluation set: of the untouched base, and with a saved adapter."""
    # In training mode, with dropout 0: in evaluation mode, on a CPU with AVX512-BF16, bitsandbytes repacks
    # the weights and multiplies in bfloat16, which changed losses by 4e-4 of their value.
    base = _plain_base(spec).train()
    untouched = _mean_loss(base, data.eval.examples)
    adapted = PeftModel.from_pretrained(base, str(adapter)).train()
    for module in adapted.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    return untouched, _mean_loss(adapted, data.eval.examples)


def train_with_both(
    spec: BaseSpec, config: TrialConfig, data: DataBundle, *, steps: int, folder: Path
) -> list[LossPair]:
    """Training losses of a trial's first `steps` steps, from the same adapter and on the same batches.

    The trial must not accumulate gradients. `folder` receives the adapter that both start from.
    """
    plan = BatchPlan(train=data.train, batch_size=config.per_device_train_batch_size, seed=config.seed)
    batches = [plan.examples_at(index) for index in range(steps)]
    ours = _by_a_pack(spec, config, batches, folder)
    theirs = _by_peft(spec, config, batches, folder)
    return [
        LossPair(f"training, step {number}", *losses)
        for number, losses in enumerate(zip(ours, theirs, strict=True), start=1)
    ]


def _by_a_pack(
    spec: BaseSpec, config: TrialConfig, batches: Sequence[Sequence[TokenizedExample]], folder: Path
) -> list[float]:
    pack = Pack(load_base(spec), PackOptions())
    seat = pack.new_seat(config)
    save_adapter(folder, pack, seat)
    losses = []
    for examples in batches:
        block = Block.of([(e.input_ids, e.labels) for e in examples], pack.base.device)
        stats = pack.train_step({seat: MicroBatch(block, block.num_tokens, block.num_targets)})
        losses.append(stats[seat].read().loss)
    return losses


def _by_peft(
    spec: BaseSpec, config: TrialConfig, batches: Sequence[Sequence[TokenizedExample]], folder: Path
) -> list[float]:
    model = PeftModel.from_pretrained(_plain_base(spec), str(folder), is_trainable=True).train()
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(
        trained,
        lr=config.learning_rate,
        betas=(config.adam_beta1, config.adam_beta2),
        eps=config.adam_epsilon,
        weight_decay=config.weight_decay,
        fused=True,
    )
    schedule = get_scheduler(config.lr_scheduler_type, optimizer, config.warmup_steps, config.max_steps)
    losses = []
    for examples in batches:
        loss = model(**_padded(examples)).loss
        loss.backward()
        if config.max_grad_norm:
            torch.nn.utils.clip_grad_norm_(trained, config.max_grad_norm)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        losses.append(float(loss.detach()))
    return losses


def _plain_base(spec: BaseSpec) -> PreTrainedModel:
    model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(
        spec.source,
        quantization_config=nf4_config(torch.float32),
        dtype=torch.float32,
        device_map={"": "cpu"},
    )
    model.config.use_cache = False
    return model


@torch.no_grad()
def _mean_loss(model: Any, examples: Sequence[TokenizedExample]) -> float:
    """Nats per predicted token over all examples."""
    total, count = 0.0, 0
    ordered = sorted(examples, key=lambda example: len(example.input_ids))
    for first in range(0, len(ordered), EVAL_BATCH_SIZE):
        padded = _padded(ordered[first : first + EVAL_BATCH_SIZE])
        targets = int((padded["labels"] != IGNORED).sum())
        total += float(model(**padded).loss) * targets
        count += targets
    return total / count


def _padded(examples: Sequence[TokenizedExample]) -> dict[str, Tensor]:
    """Padded on the right to the longest, without attention or loss on the padding."""
    ids = [torch.tensor(list(e.input_ids)) for e in examples]
    labels = [torch.tensor(list(e.labels)) for e in examples]
    return {
        "input_ids": pad_sequence(ids, batch_first=True),
        "labels": pad_sequence(labels, batch_first=True, padding_value=IGNORED),
        "attention_mask": pad_sequence([torch.ones_like(row) for row in ids], batch_first=True),
    }
