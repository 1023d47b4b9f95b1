"""Counts the operations that torch dispatches: on a GPU with few tokens, their number determines the time."""

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
"""Prefixes of operations that compute nothing, besides those that return views."""


class OperationCounter(TorchDispatchMode):
    """Counts every operation dispatched inside the block, including backward passes.

    A fused operation counts once.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.by_name: Counter[str] = Counter()
        self.num_views = 0
        """Operations that only make views or allocate."""

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
        """All, including views: each takes time on the host."""
        return self.by_name.total()

    @property
    def num_computing(self) -> int:
        """Those that compute something, so launch at least one kernel on a GPU."""
        return self.num_operations - self.num_views
