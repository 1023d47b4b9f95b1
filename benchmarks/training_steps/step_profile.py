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
"""Functions, by the part of a step that they do."""
NAMED = (
    ("attention", ATTENTION),
    ("_tobuckets", ATTENTION),
    ("_frombuckets", ATTENTION),
    ("_packedheadfunction", LOSS),
    ("logsoftmax", LOSS),
    ("nllloss", LOSS),
    ("_packedlinearfunction", LORA),  # what is none of its products: scales, sums, gradients that are added
)
"""Parts of names of operations and of autograd's nodes, in small letters."""


@dataclass
class Shares:
    """Seconds and kernels of a step, by part."""

    seconds: Counter[str] = field(default_factory=Counter)
    kernels: Counter[str] = field(default_factory=Counter)
    wall: float = 0.0
    """Seconds of the step while it was watched."""

    @property
    def gaps(self) -> float:
        """Seconds in which the device did nothing."""
        return self.wall - sum(self.seconds.values())


@contextmanager
def labelled() -> Iterator[None]:
    """Inside, the functions of LABELLED tell the profiler which part of a step they do."""

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
    """The part of a step that an operation belongs to: what the nearest of it and its callers says."""
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
    """Run `step` once under the profiler: its events, and the seconds it took."""
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if device.type == "cuda" else [])]
    with labelled(), profile(activities=activities, acc_events=True) as profiler:
        taken = seconds(step, device)
    return list(profiler.events() or ()), taken


def profile_step(step: Callable[[], Any], device: torch.device) -> Shares:
    """What one `step` spends on its parts: of its kernels on CUDA, of its operations on a CPU."""
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
        if kernel.name != event.name  # an annotation's own echo on the device
    ]
    known = Counter(name for name, _, _ in launches)
    for event in events:
        if is_kernel(event):
            known[event.name] -= 1
            if known[event.name] < 0:  # nobody's on the host
                launches.append((event.name, OTHER, event.time_range.elapsed_us()))
    for name, part, microseconds in launches:
        place = COPIES if is_copy(name) else part
        shares.seconds[place] += microseconds / 1e6
        shares.kernels[place] += not is_copy(name)
    return shares
