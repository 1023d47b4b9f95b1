"""The peak of live tensors while a pack is made, trains and evaluates, from torch's profiler."""

from __future__ import annotations

import gc
from contextlib import nullcontext

import torch
from torch.profiler import ProfilerActivity, profile

from lora_runner.base.load_model import Base
from lora_runner.config import TrialConfig
from lora_runner.layout.pack_layout import Block
from lora_runner.memory.estimate import Workload
from lora_runner.memory.meta_device import no_launches
from lora_runner.pack.pack import MicroBatch, Pack
from tests.lora_runner.plain_models import block_of


def peak_bytes(base: Base, work: Workload, *, seats: int, accumulate: int = 1, launch: bool = True) -> int:
    """Bytes of live tensors at the worst moment: the base, a pack, two micro-steps, an evaluation."""
    held = 0
    for module in base.model.modules():
        for parameter in module.parameters(recurse=False):
            held += parameter.numel() * parameter.element_size()
        state = getattr(getattr(module, "weight", None), "quant_state", None)
        if state is not None:
            scales = (state.absmax, state.state2.absmax)
            held += sum(scale.numel() * scale.element_size() for scale in scales)
    if (output := base.model.get_output_embeddings()).weight is base.model.get_input_embeddings().weight:
        held -= output.weight.numel() * output.weight.element_size()
    config = TrialConfig(
        learning_rate=1e-3,
        embedding_learning_rate=1e-3,
        max_steps=9,
        lora_r=work.lora_r,
        lora_alpha=work.lora_r,
        lora_dropout=work.lora_dropout,
        per_device_train_batch_size=work.batch_size,
        gradient_accumulation_steps=accumulate,
    )
    block = random_block(base, work.batch_size, work.length)
    share = MicroBatch(block, block.num_tokens, accumulate * block.num_targets)
    held_out = random_block(base, max(1, work.eval_batch_size), max(2, work.eval_length))
    gc.collect()  # an earlier pack freed inside would lower the count
    with (
        nullcontext() if launch else no_launches(),
        profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler,
    ):
        filled = Pack(base, work)
        placed = [filled.new_seat(config) for _ in range(seats)]
        for _ in range(2):
            filled.train_step(dict.fromkeys(placed, share))
        if work.eval_batch_size:
            filled.evaluate(placed, [held_out])
    live = peak = 0
    events = [e for e in profiler.profiler.kineto_results.events() if e.name() == "[memory]"]
    for event in sorted(events, key=lambda e: e.start_ns()):
        live += event.nbytes()
        peak = max(peak, live)
    assert live > 0
    return int(held + peak)


def random_block(base: Base, batch_size: int, length: int) -> Block:
    vocabulary = int(base.model.get_input_embeddings().weight.shape[0])
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(2, vocabulary, (batch_size, length), generator=generator)
    return block_of(ids, ids)
