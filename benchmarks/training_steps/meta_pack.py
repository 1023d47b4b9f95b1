"""A pack of a random Llama on the meta device, run as on CUDA: its operations are counted without a GPU."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from types import SimpleNamespace
from typing import cast
from unittest.mock import patch

import torch
from transformers import LlamaForCausalLM, PreTrainedTokenizerBase
from transformers.models.llama import modeling_llama

from benchmarks.harness.operation_counter import OperationCounter
from benchmarks.training_steps.case import Case, PackTrials
from benchmarks.training_steps.random_llama import PAD
from lora_runner.base.liger import use_liger
from lora_runner.base.load_model import Base, BaseSpec
from lora_runner.base.quantization import NF4
from lora_runner.errors import ModelError
from lora_runner.fused.compute_path import Machine
from lora_runner.memory.meta_device import META, LiveBytes, no_launches
from lora_runner.pack.pack import Pack

FEW, MORE = 2, 3
"""Layers of the two models whose difference is one decoder layer. The first has less to do than the others,
since nothing below it is trained."""

GENERAL = Machine(False, "as on cards before compute capability 9")
FUSED = Machine(True, "as on cards from compute capability 9 on")


def meta_base(case: Case) -> Base:
    """The case's Llama in NF4, as from `load_base`."""
    with META:
        model = LlamaForCausalLM(case.shape.config()).to(case.dtype)
    for layer in NF4.layers(model).values():
        layer.weight = NF4.meta_weight(cast(torch.Tensor, layer.weight).shape, case.dtype)
    return Base(
        model=model.requires_grad_(False).eval(),
        tokenizer=cast(PreTrainedTokenizerBase, SimpleNamespace(pad_token_id=PAD, eos_token_id=PAD)),
        spec=BaseSpec(model=case.shape.name),
        compute_dtype=case.dtype,
        device=META,
        num_parameters=0,
    )


def step_kernels(case: Case, num_seats: int, machine: Machine) -> Counter[str]:
    """Kernels of one forward and backward pass of `num_seats` trials, by operation; after a first pass."""
    # Liger replaces functions and classes of the module, for all models of the process.
    with patch.dict(vars(modeling_llama)), LiveBytes(), no_launches():
        base = meta_base(case)
        if not machine.has_fused_kernels:  # which a pack does itself only on CUDA
            use_liger(base.model, torch.device("cuda"))
        pack = Pack(base, case.options(), machine)
        if pack.path.is_fused != machine.has_fused_kernels:
            raise ModelError(f"{case.shape.name} is not computed as asked: {pack.path.describe()[0]}")
        pack.attention = replace(pack.attention, device_type="cuda")
        trials = PackTrials(replace(case, device=META), num_seats, pack)
        batches = trials.batches()
        pack.micro_step(batches)
        with OperationCounter("meta") as counter:
            pack.micro_step(batches)
    return counter.kernels


def layer_kernels(case: Case, num_seats: int, machine: Machine = GENERAL) -> tuple[Counter[str], int]:
    """Kernels of one decoder layer, forward and backward, by operation; and those of the step in all."""
    few, more = (
        step_kernels(replace(case, shape=replace(case.shape, layers=layers)), num_seats, machine)
        for layers in (FEW, MORE)
    )
    layer = Counter(more)
    layer.subtract(few)
    return +layer, few.total() + (case.shape.layers - FEW) * layer.total()
