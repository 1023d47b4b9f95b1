"""How many operations torch dispatches: on a GPU, with few tokens, it is their number that takes the time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from torch.utils._python_dispatch import TorchDispatchMode

MAKES_NO_KERNEL = (
    "empty",
    "new_empty",
    "_unsafe_view",
    "detach",
    "lift_fresh",
    "_has_compatible_shallow_copy",
)
"""Start of the names of operations that compute nothing, besides all whose result is a view."""


class OperationCounter(TorchDispatchMode):
    """Counts every operation dispatched inside the block, those of a backward pass included.

    What a kernel calls within itself is part of it: a fused operation counts once.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.by_name: Counter[str] = Counter()
        self.num_views = 0
        """Operations that only look at memory in another way, or ask for some."""

    def __torch_dispatch__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        name = str(func)
        self.by_name[name] += 1
        bare = name.rpartition("::")[2].removeprefix("aten.")
        self.num_views += getattr(func, "is_view", False) or bare.startswith(MAKES_NO_KERNEL)
        return func(*args, **(kwargs or {}))

    @property
    def num_operations(self) -> int:
        """All of them, views included: each costs the host its time."""
        return self.by_name.total()

    @property
    def num_computing(self) -> int:
        """Those that compute something, and so launch at least one kernel on a GPU."""
        return self.num_operations - self.num_views
