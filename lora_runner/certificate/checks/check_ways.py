"""Checks ways one after another, each on inputs that its own name and the seed draw."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence

import torch

from lora_runner.certificate.certificate import Check
from lora_runner.certificate.checks.invariance import ON_CPU, ON_CUDA, check_case
from lora_runner.certificate.checks.timing import median_seconds
from lora_runner.certificate.model_sizes import ModelSizes
from lora_runner.certificate.ways.case import Case, Setting
from lora_runner.certificate.ways.registry import Way
from lora_runner.errors import first_line, is_device_error

TIMED_BLOCKS = {"cuda": (266,) * 8, "cpu": (64,) * 4}
"""Rows of the blocks of a pass whose speed is measured: eight trials of four sequences on CUDA."""
UNIT_OF = {"TFLOP/s": 1e12, "GB/s": 1e9}


def check_way(
    way: Way,
    device: torch.device,
    dtype: torch.dtype,
    sizes: ModelSizes,
    seed: int,
    alive: Callable[[], None],
) -> Iterator[Check]:
    """The checks of all cases of a way. It ends with a case that raises; what differs is not timed.

    An error of the device itself, after which nothing can be computed in this process, is raised.
    """
    draws = random.Random(f"{seed} {way.kind} {way.name}")
    generator = torch.Generator(device).manual_seed(draws.getrandbits(62))
    setting = Setting(device, dtype, sizes, generator)
    name = "preparation"
    try:
        for case in way.cases(setting):
            name = case.name
            yield _check(way, case, device, draws, alive)
    except Exception as error:
        if is_device_error(error):
            raise
        error_text = f"raised {type(error).__name__}: {first_line(error)}"
        yield Check(kind=way.kind, way=way.name, case=name, comparisons=0, difference=error_text)


def _check(
    way: Way, case: Case, device: torch.device, draws: random.Random, alive: Callable[[], None]
) -> Check:
    if case.not_computed is not None:
        return Check(
            kind=way.kind, way=way.name, case=case.name, comparisons=0, not_computed=case.not_computed
        )
    plan = ON_CUDA if device.type == "cuda" else ON_CPU
    outcome = check_case(case, plan, draws, alive)
    seconds = speed = None
    if outcome.difference is None:
        rows = _timed_rows(case, device)
        prepared = case.prepare([case.draw(size) for size in rows])
        seconds = median_seconds(lambda: case.compute(prepared), device)
        speed = case.work(sum(rows)) / seconds / UNIT_OF[case.unit]
    return Check(
        kind=way.kind,
        way=way.name,
        case=case.name,
        comparisons=outcome.comparisons,
        difference=outcome.difference,
        error=outcome.error,
        milliseconds=None if seconds is None else 1e3 * seconds,
        speed=speed,
        unit=case.unit,
        rows=outcome.rows,
    )


def _timed_rows(case: Case, device: torch.device) -> Sequence[int]:
    rows = TIMED_BLOCKS[device.type]
    if case.max_rows is None or sum(rows) <= case.max_rows:
        return rows
    return [max(1, case.max_rows // len(rows))] * min(len(rows), case.max_rows)
