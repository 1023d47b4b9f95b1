"""Where the time of a pack's training step goes: torch's profiler, by part of the step."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any
from unittest.mock import patch

import torch
import torch.nn.functional as F
from torch.profiler import ProfilerActivity, profile, record_function

from benchmarks.harness.kernel_launches import is_copy, is_kernel
from benchmarks.harness.timing import seconds
from lora_runner.layers import embeddings as packed_embeddings
from lora_runner.layers import linear as packed_modules
from lora_runner.layers.adapter_bank import AdapterBank
from lora_runner.layers.linear import PackedLinear
from lora_runner.pack.pack import Pack

LABEL = "part of a step: "
PRODUCTS, DEQUANTISATION, LORA = "frozen products", "dequantisation", "LoRA"
ATTENTION, LOSS, UPDATE = "attention", "output layer and loss", "update"
COPIES, OTHER, GAPS = "copies and fills", "norms, activations and the rest", "gaps"
PARTS = (PRODUCTS, DEQUANTISATION, LORA, ATTENTION, OTHER, LOSS, UPDATE, COPIES)
LABELLED: tuple[tuple[Any, str, str], ...] = (
    (packed_modules, "matmul_shared", PRODUCTS),
    (packed_modules, "matmul_by_block", LORA),
    (packed_modules, "outer_by_block", LORA),
    (AdapterBank, "__init__", LORA),
    (PackedLinear, "base_weight", DEQUANTISATION),
    (PackedLinear, "masks", LORA),
    (packed_embeddings, "matmul_shared", LOSS),
    (F, "cross_entropy", LOSS),
    (Pack, "head_logits", LOSS),
    (Pack, "update", UPDATE),
)
"""Functions and the part of a step that they belong to."""
NAMED = (
    ("attention", ATTENTION),
    ("_tobuckets", ATTENTION),
    ("_frombuckets", ATTENTION),
    ("_packedheadfunction", LOSS),
    ("logsoftmax", LOSS),
    ("nllloss", LOSS),
    ("_packedlinearfunction", LORA),  # apart from its products: scales, sums, added gradients
)
"""Substrings of lower-case names of operations and autograd nodes."""


@dataclass
class Shares:
    """Seconds and kernels of a step, by part."""

    seconds: Counter[str] = field(default_factory=Counter)
    kernels: Counter[str] = field(default_factory=Counter)
    wall: float = 0.0
    """Seconds of the step under the profiler."""

    @property
    def gaps(self) -> float:
        """Seconds in which the device was idle."""
        return self.wall - sum(self.seconds.values())


@contextmanager
def labelled() -> Iterator[None]:
    """Inside, the functions of LABELLED are recorded under the part of a step that they belong to."""

    def labelled_as(function: Callable[..., Any], part: str) -> Callable[..., Any]:
        def labelled_function(*given: Any, **named: Any) -> Any:
            with record_function(LABEL + part):
                return function(*given, **named)

        return labelled_function

    with ExitStack() as stack:
        for owner, name, part in LABELLED:
            stack.enter_context(patch.object(owner, name, labelled_as(getattr(owner, name), part)))
        yield


def part_of(event: Any) -> str:
    """Return the part of a step that an operation belongs to, from it or its nearest labelled caller."""
    while event is not None:
        if event.name.startswith(LABEL):
            return str(event.name.removeprefix(LABEL))
        small = event.name.lower()
        for word, part in NAMED:
            if word in small:
                return part
        event = event.cpu_parent
    return OTHER


def profiled(step: Callable[[], Any], device: torch.device) -> tuple[list[Any], float]:
    """Run `step` once under the profiler; return its events and seconds."""
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if device.type == "cuda" else [])]
    with labelled(), profile(activities=activities, acc_events=True) as profiler:
        taken = seconds(step, device)
    return list(profiler.events() or ()), taken


def profile_step(step: Callable[[], Any], device: torch.device) -> Shares:
    """Return the seconds that one `step` spends on its parts: in kernels on CUDA, in operations on a CPU."""
    events, wall = profiled(step, device)
    shares = Shares(wall=wall)
    if device.type != "cuda":
        for event in events:
            shares.seconds[part_of(event)] += event.self_cpu_time_total / 1e6
        return shares
    launches = [
        (kernel.name, part_of(event), kernel.duration)
        for event in events
        for kernel in event.kernels
        if kernel.name != event.name  # the annotation itself on the device
    ]
    known = Counter(name for name, _, _ in launches)
    for event in events:
        if is_kernel(event):
            known[event.name] -= 1
            if known[event.name] < 0:  # launched by no operation on the host
                launches.append((event.name, OTHER, event.time_range.elapsed_us()))
    for name, part, microseconds in launches:
        part = COPIES if is_copy(name) else part
        shares.seconds[part] += microseconds / 1e6
        shares.kernels[part] += not is_copy(name)
    return shares
