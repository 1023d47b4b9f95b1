"""Modules of a base that multiply by matrices of their own, called once for each block of a pass.

Routers and fused experts are no linear layers that could be replaced. Called on all rows at once, the
rounding of their matmuls would depend on the neighbours' rows, and an expert would see a selection of rows
without known owners. Called block by block, all rows belong to one seat.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from lora_runner.layers.linear import PackContext, PackedModule, RowOwners

_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


def call_by_block(decoder: nn.Module, context: PackContext, probe: Callable[[], object]) -> list[str]:
    """Make the modules below `decoder` that need it compute block by block; returns their names.

    `probe` makes one or more plain forward passes, each of one block. They show which modules see all rows:
    for a module that sees a selection, the smallest module around it that sees all rows is called block by
    block.
    """
    saw_all, saw_selection = set[str](), set[str]()

    def record(name: str, module: nn.Module, args: Sequence[Any], kwargs: dict[str, Any]) -> None:
        assert context.rows is not None
        given = next((x for x in (*args, *kwargs.values()) if isinstance(x, Tensor)), None)
        num_rows = context.rows.num_rows
        if given is not None and isinstance(module, PackedModule):  # which flattens its rows
            sees_all = given.shape[:-1].numel() == num_rows
        else:
            sees_all = given is not None and _row_dimension(given, num_rows) is not None
        (saw_all if sees_all else saw_selection).add(name)

    with ExitStack() as hooks:
        for name, module in decoder.named_modules():
            hook = partial(record, name)
            hooks.enter_context(module.register_forward_pre_hook(hook, with_kwargs=True))
        probe()
    wanted, replaced = set[str](), tuple[str, ...]()
    for name, module in decoder.named_modules():
        if name.startswith(replaced):
            continue
        inside = isinstance(module, PackedModule)
        if inside:
            replaced = (*replaced, f"{name}.")
        if name in saw_selection if inside else _multiplies(module):
            while name and name not in saw_all - saw_selection:
                name = name.rpartition(".")[0]
            wanted.add(name)
    outermost = [
        name for name in sorted(wanted - {""}) if not any(name.startswith(f"{other}.") for other in wanted)
    ]
    for name in outermost:
        module = decoder.get_submodule(name)
        module.forward = ByBlock(module.forward, context)  # type: ignore[method-assign]
    return outermost


def _multiplies(module: nn.Module) -> bool:
    """Whether a module that was not replaced has matmuls of its own.

    It owns a matrix or a stack of them, or it mixes tokens by a convolution, as the mixers of state space
    models do, whose scans are matmuls too.
    """
    if isinstance(module, (nn.Embedding, *_CONVOLUTIONS)):
        return False
    has_matrix = any(sum(side > 1 for side in own.shape) > 1 for own in module.parameters(recurse=False))
    return has_matrix or any(isinstance(child, _CONVOLUTIONS) for child in module.children())


class ByBlock:
    """A module's forward, called for one block after another."""

    def __init__(self, forward: Callable[..., Any], context: PackContext) -> None:
        self._forward, self._context = forward, context

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        rows = self._context.rows
        if rows is None or len(rows.blocks) < 2:
            return self._forward(*args, **kwargs)
        values = [*args, *kwargs.values()]
        parts = [_split(value, rows) for value in values]
        outputs = []
        try:
            for block in range(len(rows.blocks)):
                self._context.rows = rows.alone(block)
                here = [part[block] for part in parts]
                named = dict(zip(kwargs, here[len(args) :], strict=True))
                outputs.append(self._forward(*here[: len(args)], **named))
        finally:
            self._context.rows = rows
        first = next(value for value in values if _is_of_rows(value, rows))
        return _joined(outputs, first.dim(), _row_dimension(first, rows.num_rows) or 0)


def _row_dimension(x: Tensor, num_rows: int) -> int | None:
    """The dimension along which `x` has blocks: rows (T, ...), (1, T, ...) or sequences (B, S, ...)."""
    if x.dim() > 1 and x.shape[0] == num_rows:
        return 0
    if x.dim() > 2 and x.shape[0] * x.shape[1] == num_rows:
        return 1 if x.shape[0] == 1 else 0
    return None


def _is_of_rows(value: Any, rows: RowOwners) -> bool:
    return isinstance(value, Tensor) and _row_dimension(value, rows.num_rows) is not None


def _split(value: Any, rows: RowOwners) -> Sequence[Any]:
    """One value per block: its rows of a tensor of all rows; everything else unchanged."""
    if isinstance(value, tuple | list):
        return [type(value)(parts) for parts in zip(*(_split(one, rows) for one in value), strict=True)] or [
            value
        ] * len(rows.blocks)
    if not _is_of_rows(value, rows):
        return [value] * len(rows.blocks)
    dimension = _row_dimension(value, rows.num_rows)
    assert dimension is not None
    each = rows.num_rows // value.shape[dimension]  # rows per entry: more than 1 for sequences
    parts: Sequence[Any] = value.split([size // each for size in rows.blocks.sizes], dim=dimension)
    return parts


def _joined(outputs: Sequence[Any], dimensions: int, along: int) -> Any:
    """The blocks' outputs as one; without the batch dimension, rows are the first dimension."""
    first = outputs[0]
    if isinstance(first, tuple | list):
        return type(first)([_joined(parts, dimensions, along) for parts in zip(*outputs, strict=True)])
    if not isinstance(first, Tensor):
        return first
    return torch.cat(list(outputs), dim=along if first.dim() == dimensions else 0)
