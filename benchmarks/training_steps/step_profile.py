"""Where the time of a pack's training step goes: torch's profiler, by part of the step."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any
from unittest.mock import patch

import torch
import torch.nn.functional as F
from torch.profiler import ProfilerActivity, profile, record_function

from benchmarks.harness.kernel_launches import is_copy, is_kernel
from benchmarks.harness.timing import seconds
from benchmarks.training_steps.kernel_parts import (
    ATTENTION,
    COPIES,
    DEQUANTIZATION,
    LORA,
    LOSS,
    OTHER,
    PRODUCTS,
    UPDATE,
    part_of_kernel,
)
from lora_runner.layers import embeddings as packed_embeddings
from lora_runner.layers import linear as packed_modules
from lora_runner.layers.adapter_bank import AdapterBank
from lora_runner.layers.linear import PackedLinear
from lora_runner.pack.pack import Pack

LABEL = "part of a step: "
LABELLED: tuple[tuple[Any, str, str], ...] = (
    (packed_modules, "matmul_shared", PRODUCTS),
    (packed_modules, "matmul_by_block", LORA),
    (packed_modules, "outer_by_block", LORA),
    (AdapterBank, "__init__", LORA),
    (PackedLinear, "base_weight", DEQUANTIZATION),
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
    busy: float = 0.0
    """Seconds in which the device did something; less than those of all parts where kernels overlap."""

    @property
    def gaps(self) -> float:
        """Seconds in which the device was idle."""
        return self.wall - self.busy


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
        shares.busy = sum(shares.seconds.values())
        return shares
    launches = [
        (kernel.name, _part_on_device(kernel.name, part_of(event)), kernel.duration)
        for event in events
        for kernel in event.kernels
        if kernel.name != event.name  # the annotation itself on the device
    ]
    known = Counter(name for name, _, _ in launches)
    there = [event for event in events if is_kernel(event)]
    for event in there:
        known[event.name] -= 1
        if known[event.name] < 0:  # launched by no operation on the host, as in a replayed graph
            launches.append((event.name, _part_on_device(event.name), event.time_range.elapsed_us()))
    for name, part, microseconds in launches:
        shares.seconds[part] += microseconds / 1e6
        shares.kernels[part] += not is_copy(name)
    shares.busy = _covered([(event.time_range.start, event.time_range.end) for event in there]) / 1e6
    return shares


def _part_on_device(kernel: str, of_caller: str = OTHER) -> str:
    """The part of a kernel: what its caller is only for, else what its name says, else its caller's."""
    if is_copy(kernel):
        return COPIES
    if of_caller in (LOSS, UPDATE):  # which use kernels of other parts too
        return of_caller
    return part_of_kernel(kernel) or of_caller


def _covered(spans: Sequence[tuple[float, float]]) -> float:
    """Return the length of the union of spans (start, end)."""
    covered, until = 0.0, float("-inf")
    for start, end in sorted(spans):
        covered += max(0.0, end - max(start, until))
        until = max(until, end)
    return covered
