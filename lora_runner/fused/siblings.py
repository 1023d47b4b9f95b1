"""Finding linear layers that read the same input, by watching a pass instead of by their names."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from typing import Any

from torch import Tensor, nn

from lora_runner.fused.compute_path import NotFusedError
from lora_runner.layers.linear import PackContext, PackedLinear

COLUMN_MULTIPLE = 16
"""Sides of a layer that the kernels take: aligned loads, and dropout's 16 elements per counter."""


def find_siblings(
    decoder: nn.Module, context: PackContext, probe: Callable[[], object]
) -> list[list[PackedLinear]]:
    """The decoder's linear layers, those with the same input together, in the order of their calls.

    `probe` makes one pass. Layers with an adapter and without are kept apart. NotFusedError: a layer that a
    fused pass cannot compute.
    """
    linears = [module for module in decoder.modules() if isinstance(module, PackedLinear)]
    for linear in linears:
        if linear.calls_base:
            raise NotFusedError(f"{linear.name} computes in a way of its own")
        if odd := [n for n in (linear.in_features, linear.out_features) if n % COLUMN_MULTIPLE]:
            raise NotFusedError(f"{linear.name} has a side of {odd[0]}, no multiple of {COLUMN_MULTIPLE}")
    calls = list[tuple[PackedLinear, Tensor]]()

    def record(linear: PackedLinear, _: nn.Module, args: Sequence[Any]) -> None:
        assert context.rows is not None
        if not args:
            raise NotFusedError(f"{linear.name} is given its input by keyword")
        if args[0].shape[:-1].numel() != context.rows.num_rows:
            raise NotFusedError(f"{linear.name} sees a selection of the rows")
        calls.append((linear, args[0]))

    with ExitStack() as hooks:
        for linear in linears:
            hooks.enter_context(linear.register_forward_pre_hook(partial(record, linear)))
        probe()
    groups: dict[tuple[int, bool], list[PackedLinear]] = {}
    for linear, x in calls:
        # By the tensor itself: `calls` keeps it, so no other can have its id.
        groups.setdefault((id(x), linear.index is None), []).append(linear)
    if unequal := [linear for linear in linears if sum(one is linear for one, _ in calls) != 1]:
        raise NotFusedError(f"{unequal[0].name} is not called exactly once in a pass")
    return list(groups.values())
