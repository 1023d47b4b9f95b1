"""How many operations a pack dispatches, which dominates the time of short sequences on a GPU."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model

from benchmarks.harness.operation_counter import OperationCounter
from lora_runner.base.load_model import BaseSpec, load_base
from lora_runner.config import TrialConfig
from lora_runner.pack.options import PackOptions
from lora_runner.pack.pack import MicroBatch, Pack
from tests.lora_runner.plain_models import block_of, plain_nf4

SEATS = 8
MOST = 160
"""Computing operations of forward and backward pass per trial; views do not count."""


@pytest.fixture(scope="module")
def folder(tiny_model: Callable[..., Path]) -> Path:
    return tiny_model("llama", num_hidden_layers=4)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("resident", [False, True], ids=["dequantized_weight", "resident"])
def test_a_pack_of_eight_dispatches_a_fifth_of_what_peft_does(
    folder: Path, dtype: str, resident: bool
) -> None:
    pack = Pack(
        load_base(BaseSpec(model=str(folder), compute_dtype=dtype)),  # type: ignore[arg-type]
        PackOptions(resident_weights=resident),
    )
    ids = torch.randint(2, 256, (4, 32), generator=torch.Generator().manual_seed(0))
    share = MicroBatch(block_of(ids, ids), ids.numel(), 4 * 31)
    configs = [TrialConfig(learning_rate=1e-3, max_steps=9, seed=seed) for seed in range(SEATS)]
    seats = [pack.new_seat(config) for config in configs]
    pack.train_step(dict.fromkeys(seats, share))
    with OperationCounter() as ours:
        pack.micro_step(dict.fromkeys(seats, share))
    with OperationCounter() as update:
        pack.update(seats)

    plain = plain_nf4(folder)
    peft = get_peft_model(plain, LoraConfig(task_type="CAUSAL_LM", r=16, target_modules="all-linear")).train()
    with OperationCounter() as theirs:
        peft(input_ids=ids, labels=ids).loss.backward()

    assert len(pack.linears) == 4 * 7
    assert ours.num_computing / SEATS <= MOST
    assert update.num_computing / SEATS <= 20
    # 100 to 139 against 772 when this was written, the latter without bfloat16's casts; the update 17.6.
    assert ours.num_computing / SEATS < theirs.num_computing / 5
