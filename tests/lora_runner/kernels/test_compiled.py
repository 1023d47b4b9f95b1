"""What kernels compile to, without a GPU: matrix instructions, wide loads, no spills, memory that fits.

A new kernel is one more entry of KERNELS: a call on the meta device that launches it.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor

from lora_runner.base.quantization import NF4
from lora_runner.certificate.ways.registry import FUSED_SHARED_BYTES
from lora_runner.kernels.adapter_group import AdapterGroup
from lora_runner.kernels.attention_backward import attention_backward
from lora_runner.kernels.attention_forward import attention_forward
from lora_runner.kernels.attention_scores import AttentionOptions
from lora_runner.kernels.dense_matmul import dense_matmul
from lora_runner.kernels.dequantize import dequantize_4bit_into
from lora_runner.kernels.embedding_rows import add_embedding_gradients, embedding_rows
from lora_runner.kernels.gated_activation import ACTIVATIONS, gated_activation, gated_activation_backward
from lora_runner.kernels.lora.expand import expand_inputs_, expand_outputs_
from lora_runner.kernels.lora.gradients import add_adapter_gradients
from lora_runner.kernels.lora.shrink import CHUNK, shrink_gradients, shrink_inputs
from lora_runner.kernels.rms_norm import NormForm, rms_norm, rms_norm_backward
from lora_runner.kernels.rotary import RotaryForm, rotate
from lora_runner.layout.embedding_tables import EmbeddingTables
from lora_runner.layout.pass_tables import PassShape, PassTables
from lora_runner.layout.sequence_tables import SequenceShape, SequenceTables
from tests.lora_runner.kernels.compiled_launches import SHARED_BYTES, Compiled, compiled, launches_of

pytestmark = pytest.mark.slow


class Kernels(NamedTuple):
    """A function of `lora_runner/kernels/` and what its kernels must compile to."""

    call: Callable[[], object]
    """On meta tensors, of a real model's sizes."""
    capabilities: tuple[int, ...] = (80, 90, 100)
    """Those with tensor memory descriptors are for 90 and later."""
    matrices: bool = False
    """Every kernel it launches uses matrix instructions."""
    wide: bool = True
    """Every kernel it launches loads 16 bytes at once."""


def meta(*shape: int, dtype: torch.dtype = torch.bfloat16) -> Tensor:
    return torch.empty(shape, dtype=dtype, device="meta")


LLAMA_NORM = NormForm(adds_one=False, rounds_first=True)
HALVES = RotaryForm(interleaved=False, shares_angles=False)
JOINT = meta(2130, 6144)
QUERIES, KEYS = JOINT[:, :4096].unflatten(-1, (32, 128)), JOINT[:, 4096:5120].unflatten(-1, (8, 128))
GATE, UP = meta(2130, 28672).chunk(2, dim=-1)


def attention(heads: int, key_heads: int, head_size: int, **options: float) -> Callable[[], object]:
    """Both directions, on queries, keys and values side by side."""

    def call() -> None:
        tables = SequenceTables.empty(SequenceShape(2176, 33), torch.device("meta"))
        chosen = AttentionOptions(head_size**-0.5, **options)  # type: ignore[arg-type]
        joint = meta(2176, heads + 2 * key_heads, head_size)
        query, key, value = joint.split((heads, key_heads, key_heads), dim=1)
        out, log_sums = attention_forward(query, key, value, tables, chosen)
        attention_backward(meta(*query.shape), query, key, value, out, log_sums, tables, chosen)

    return call


def dequantize(columns: int, *rows: int) -> Callable[[], object]:
    def call() -> None:
        weights: list[Any] = [NF4.meta_weight(torch.Size((each, columns)), torch.bfloat16) for each in rows]
        dequantize_4bit_into(
            meta(sum(rows), columns), *((weight.data, weight.quant_state) for weight in weights)
        )

    return call


RANK = 16
TABLES = PassTables.empty(PassShape(2176, 9, 224, RANK), torch.device("meta"))
SHRUNK, ADAPTERS = meta(2176, 3 * RANK), meta(2**30, dtype=torch.float32)


def siblings(in_features: int, *out_features: int) -> AdapterGroup:
    few = range(len(out_features))
    return AdapterGroup.of(in_features, out_features, before=few, layers=few, device=torch.device("meta"))


QKV = siblings(4096, 4096, 1024, 1024)
EMBEDDED = EmbeddingTables.empty(2176, torch.device("meta"))
X, DY = meta(2176, 4096), meta(2176, 6144)

KERNELS = {
    "dense forward": Kernels(
        lambda: dense_matmul(meta(2130, 4096), meta(28672, 4096), transposed=True),
        capabilities=(90, 100),
        matrices=True,
    ),
    "dense in whole tiles": Kernels(
        lambda: dense_matmul(meta(2130, 4096), meta(6144, 4096), transposed=True, halves_last=False),
        capabilities=(90, 100),
        matrices=True,
    ),
    "dense backward": Kernels(
        lambda: dense_matmul(meta(2130, 28672), meta(28672, 4096), transposed=False),
        capabilities=(90, 100),
        matrices=True,
    ),
    "shrink in one chunk": Kernels(
        lambda: (
            shrink_inputs(meta(2176, CHUNK), ADAPTERS, siblings(CHUNK, 1024), TABLES, RANK),
            shrink_gradients(meta(2176, CHUNK), ADAPTERS, siblings(1024, CHUNK), TABLES, RANK),
        ),
        matrices=True,
    ),
    "shrink inputs": Kernels(lambda: shrink_inputs(X, ADAPTERS, QKV, TABLES, RANK)),
    "shrink gradients": Kernels(lambda: shrink_gradients(DY, ADAPTERS, QKV, TABLES, RANK)),
    "expand outputs": Kernels(
        lambda: expand_outputs_(DY, SHRUNK, ADAPTERS, QKV, TABLES, RANK), matrices=True
    ),
    "expand inputs": Kernels(lambda: expand_inputs_(X, SHRUNK, ADAPTERS, QKV, TABLES, RANK), matrices=True),
    "adapter gradients": Kernels(
        lambda: add_adapter_gradients(ADAPTERS, X, DY, SHRUNK, SHRUNK, QKV, TABLES, RANK), matrices=True
    ),
    **{
        f"norm of {x.shape[-1]}": Kernels(
            lambda x=x: (
                rms_norm(x, meta(x.shape[-1]), 1e-6, LLAMA_NORM),
                rms_norm_backward(x, x, meta(x.shape[-1]), 1e-6, LLAMA_NORM),
            )
        )
        for x in (QUERIES[None], meta(2130, 896), meta(2130, 4096), meta(2130, 16384))
    },
    "embeddings": Kernels(
        lambda: (
            embedding_rows(ADAPTERS, meta(128256, 4096), meta(2176, dtype=torch.int64), EMBEDDED, 1.0),
            add_embedding_gradients(ADAPTERS, X, EMBEDDED, 1.0),
        )
    ),
    "rotation": Kernels(lambda: rotate(QUERIES, KEYS, meta(2130, 128), meta(2130, 128), HALVES)),
    "rotation in place": Kernels(
        lambda: rotate(QUERIES, KEYS, meta(2130, 128), meta(2130, 128), HALVES, backward=True, in_place=True)
    ),
    **{
        f"gated {kind}": Kernels(
            lambda kind=kind: (
                gated_activation(GATE, UP, kind),
                gated_activation_backward(GATE, GATE, UP, kind),
            )
        )
        for kind in ACTIVATIONS
    },
    # The fused path is not taken before capability 9.
    "attention": Kernels(attention(32, 8, 128), capabilities=(90, 100), matrices=True),
    "attention, 7 heads of a key head": Kernels(attention(14, 2, 64), capabilities=(90, 100), matrices=True),
    "attention, head size 256": Kernels(attention(16, 8, 256), capabilities=(90, 100), matrices=True),
    "attention, head size 256, soft cap and window": Kernels(
        attention(8, 4, 256, soft_cap=50.0, window=4096), capabilities=(90, 100), matrices=True
    ),
    "attention, head size 80": Kernels(attention(32, 32, 80), capabilities=(90, 100), matrices=True),
    "attention, window": Kernels(attention(32, 8, 128, window=4096), capabilities=(90, 100), matrices=True),
    "dequantize": Kernels(dequantize(14336, 4096)),
    "dequantize siblings": Kernels(dequantize(4096, 4096, 1024, 1024)),
}


@pytest.mark.parametrize(
    ("name", "capability"),
    [(name, each) for name, kernels in KERNELS.items() for each in kernels.capabilities],
)
def test_kernels_use_what_the_device_has(name: str, capability: int, tmp_path: Path) -> None:
    expected = KERNELS[name]
    launches = launches_of(expected.call)
    assert launches
    for launch in launches:
        made = Compiled(launch, capability, tmp_path)
        kernel = launch.kernel.__name__
        assert (made.resources["STACK"], made.resources["LOCAL"]) == (0, 0), f"{kernel} spills"
        assert made.shared_bytes <= min(SHARED_BYTES[capability], FUSED_SHARED_BYTES), kernel
        if expected.matrices:
            assert made.multiplies_matrices, kernel
        if expected.wide:
            assert made.loads_16_bytes, kernel


@pytest.mark.parametrize("head_size", [256, 72])
def test_a_norm_of_transposed_heads_is_compiled_once(head_size: int) -> None:
    """Gemma 3 transposes before it normalizes; another kernel for other rows might add in another order."""
    weight, made = meta(head_size), []
    for num_rows in (257, 266, 288):
        x, grad = meta(1, num_rows, 8, head_size).transpose(1, 2), meta(1, 8, num_rows, head_size)
        launches = launches_of(
            lambda x=x, grad=grad: (  # type: ignore[misc]
                rms_norm(x, weight, 1e-6, LLAMA_NORM),
                rms_norm_backward(grad, x, weight, 1e-6, LLAMA_NORM),
            )
        )
        made.append([compiled(launch, 90) for launch in launches])
    assert made[0] == made[1] == made[2]


def test_rows_are_counted_along_the_axis_of_programs_that_holds_more_than_65535() -> None:
    """Of each kernel for adapters, in a pass of 5 million rows."""
    num_rows = 5 * 10**6
    tables = PassTables.empty(PassShape(num_rows, 9, 224, RANK), torch.device("meta"))
    shrunk, x, dy = meta(num_rows, 3 * RANK), meta(num_rows, 4096), meta(num_rows, 6144)
    launches = launches_of(
        lambda: (
            shrink_inputs(x, ADAPTERS, QKV, tables, RANK),
            expand_outputs_(dy, shrunk, ADAPTERS, QKV, tables, RANK),
            shrink_gradients(dy, ADAPTERS, QKV, tables, RANK),
            add_adapter_gradients(ADAPTERS, x, dy, shrunk, shrunk, QKV, tables, RANK),
        )
    )
    assert len(launches) > 3
    for launch in launches:
        assert max(launch.grid[1:], default=1) <= 65_535, launch.kernel.__name__
