"""Work that a graph cannot record, refused while one is captured.

What CUDA would refuse (values read on the host) ends here before it breaks the recording. The rest CUDA would
record without a word, to be wrong in every replay: a copy from memory of the host that is soon used for
something else, and random numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from lora_runner.errors import RunnerError

INDEXING = (
    torch.ops.aten.index.Tensor,
    torch.ops.aten.index_put.default,
    torch.ops.aten.index_put_.default,
)
"""They turn a mask among their indices into rows, whose number the host has to know."""


class CaptureError(RunnerError):
    """Work that cannot be captured, named with the reason."""


class CaptureGuard(TorchDispatchMode):
    """Raises CaptureError for an operation on `device_type` that a graph cannot record."""

    def __init__(self, device_type: str) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._device_type = device_type

    def __torch_dispatch__(
        self,
        func: Any,
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        if reason := why_not_captured(func, args, kwargs or {}, self._device_type):
            raise CaptureError(f"{func.name()} {reason}")
        return func(*args, **(kwargs or {}))


def why_not_captured(func: Any, args: Sequence[Any], kwargs: dict[str, Any], device_type: str) -> str:
    """Why a graph cannot record an operation; empty if it can."""
    tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
    on_device = any(tensor.device.type == device_type for tensor in tensors)
    if torch.Tag.nondeterministic_seeded in func.tags and not _drops_nothing(func, args, kwargs):
        return "draws random numbers"
    if not on_device:
        # Tensors of the host alone are computed at once, also during a capture.
        target = torch.device(kwargs.get("device") or "cpu")
        copies = tensors and target.type == device_type != "cpu"
        return "copies a tensor that the host has made" if copies else ""
    if torch.Tag.data_dependent_output in func.tags:
        return "reads a value on the host"
    if func in INDEXING:
        masks = [x for x in args[1] if x is not None and x.dtype in (torch.bool, torch.uint8)]
        return "has a result whose shape follows from values" if masks else ""
    if torch.Tag.dynamic_output_shape in func.tags:
        return "has a result whose shape follows from values"
    if func is torch.ops.aten._to_copy.default and kwargs.get("device") is not None:
        target = torch.device(kwargs["device"])
        return "copies a tensor to the host" if target.type != device_type else ""
    if func is torch.ops.aten.copy_.default and args[0].device.type != args[1].device.type:
        return "copies a tensor between the host and the device"
    return ""


def _drops_nothing(func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> bool:
    """Whether an attention kernel, which could apply dropout, has a probability of 0."""
    for position, argument in enumerate(func._schema.arguments):
        if argument.name == "dropout_p":
            given = args[position] if position < len(args) else kwargs.get("dropout_p", 0.0)
            return not given
    return False
