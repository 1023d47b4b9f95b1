"""The evaluation loss of the untouched base without quantization: what a user has before any fine-tune.

Measured once for a sweep, in a worker, before its base is loaded in 4 bits: nothing of it stays in memory.
"""

from __future__ import annotations

import ctypes
import math
from collections.abc import Callable
from dataclasses import replace

import psutil
import torch

from lora_runner.base.load_model import BaseSpec, load_base, meta_model, num_parameters_of, resolve_dtype
from lora_runner.data import TokenizedSet
from lora_runner.errors import ModelError, first_line, is_device_error
from lora_runner.fused.compute_path import Machine
from lora_runner.layout.pack_layout import Block
from lora_runner.pack.options import PackOptions
from lora_runner.pack.pack import Pack
from lora_runner.pack.seat_by_seat import free_memory

ROOM_FOR_PASSES = 1.25
"""Memory for the weights and one evaluation beside them, in sizes of the weights."""
GIB = 2**30


def unquantized_loss(
    spec: BaseSpec,
    examples: TokenizedSet,
    batch_size: int,
    *,
    share: float = 1.0,
    loaded: Callable[[int, int], None] | None = None,
    alive: Callable[[], None] = lambda: None,
) -> float:
    """Load the base in the compute dtype alone, evaluate it in nats per token, and free it.

    `share` is this worker's share of the memory that is free. Raises ModelError with the reason where that
    cannot be done, and errors of the device.
    """
    if (reason := _too_large(spec, share)) is not None:
        raise ModelError(reason)
    try:
        loss = _evaluate(replace(spec, quantization="none"), examples, batch_size, loaded, alive)
        reason = None if math.isfinite(loss) else f"its loss is {loss}"
    except Exception as error:
        if is_device_error(error):
            raise
        reason = first_line(error)  # only text: the traceback holds the weights
    _give_back()
    if reason is not None:
        raise ModelError(reason)
    return loss


def _evaluate(
    spec: BaseSpec,
    examples: TokenizedSet,
    batch_size: int,
    loaded: Callable[[int, int], None] | None,
    alive: Callable[[], None],
) -> float:
    base = load_base(spec, loaded)
    alive()
    pack = Pack(base, PackOptions(), Machine(False, "measured once"))
    ordered = sorted(examples.examples, key=lambda e: len(e.input_ids))
    parts = [ordered[i : i + batch_size] for i in range(0, len(ordered), batch_size)]
    blocks = [Block.of([(e.input_ids, e.labels) for e in part], base.device) for part in parts]
    return pack.evaluate([None], blocks)[0]


def _too_large(spec: BaseSpec, share: float) -> str | None:
    """Why the weights do not fit, as a sentence; None if they do."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    dtype = resolve_dtype(spec.compute_dtype, device)
    needed = ROOM_FOR_PASSES * dtype.itemsize * num_parameters_of(meta_model(spec))
    if device.type == "cpu":
        free = float(psutil.virtual_memory().available)
    else:
        devices = range(torch.cuda.device_count()) if spec.device_map else [torch.cuda.current_device()]
        free = float(sum(torch.cuda.mem_get_info(index)[0] for index in devices))
    if needed <= share * free:
        return None
    return f"it takes {needed / GIB:.3g} GiB in {str(dtype)[6:]}, and {share * free / GIB:.3g} are free"


def _give_back() -> None:
    free_memory()
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
        return
    # glibc was told to keep what is freed; the base in 4 bits comes in other sizes.
    try:
        ctypes.CDLL("libc.so.6").malloc_trim(0)
    except (OSError, AttributeError):
        return
