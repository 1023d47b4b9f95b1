"""Counts operations and kernel launches: on a GPU with few tokens, their number determines the time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from lora_runner.kernels.launch import observed

MAKES_NO_KERNEL = (
    "empty",
    "new_empty",
    "_unsafe_view",
    "detach",
    "lift_fresh",
    "_has_compatible_shallow_copy",
)
"""Prefixes of operations that compute nothing, besides those that return views."""
READ = "_local_scalar_dense"
"""Prefix of the operation that copies a value to the host."""
COPIES = ("_to_copy", "copy_")
"""Prefixes of operations that copy; between two types of device they are no kernels."""
KERNELS_EACH = {
    "aten._grouped_mm.default": 2,
    "aten._scaled_dot_product_efficient_attention_backward.default": 6,
}
"""Operations of several kernels, as a profile on an H200 showed: a grouped product first writes a table of
its groups; in torch's deterministic mode, the five tensors that attention's backward allocates are filled."""


class OperationCounter(TorchDispatchMode):
    """Counts every operation dispatched inside the block, including backward passes, and Triton launches.

    A fused operation counts once. `device_type` restricts `kernels` to one type of device.
    """

    def __init__(self, device_type: str | None = None) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.by_name: Counter[str] = Counter()
        self.num_views = 0
        """Operations that only make views or allocate."""
        self._device_type = device_type
        self._computing: Counter[str] = Counter()
        self._launched: Counter[str] = Counter()
        self._run_by_triton: Counter[str] = Counter()
        self._observing = ExitStack()

    def __enter__(self) -> OperationCounter:
        self._observing.enter_context(observed(self._observe))
        self._observing.enter_context(_triton_launches(self._run_by_triton))
        super().__enter__()  # type: ignore[no-untyped-call]
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)  # type: ignore[no-untyped-call]
        self._observing.close()

    def _observe(self, name: str, _: Callable[[], None]) -> None:
        self._launched[name] += 1

    def __torch_dispatch__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        name = str(func)
        self.by_name[name] += 1
        bare = name.rpartition("::")[2].removeprefix("aten.")
        if getattr(func, "is_view", False) or bare.startswith(MAKES_NO_KERNEL):
            self.num_views += 1
        elif not bare.startswith(READ) and self._is_on_device(bare, args, kwargs, out):
            self._computing[name] += KERNELS_EACH.get(name, 1)
        return out

    def _is_on_device(self, operation: str, *values: Any) -> bool:
        """Whether an operation runs on a device of the type counted, and is no copy from or to another."""
        if self._device_type is None:
            return True
        types = {leaf.device.type for leaf in tree_leaves(values) if isinstance(leaf, Tensor)}
        return self._device_type in types and not (len(types) > 1 and operation.startswith(COPIES))

    @property
    def launches(self) -> Counter[str]:
        """Triton kernels by name, launched through `lora_runner.kernels.launch` or not."""
        # On CUDA both see a launch through it; on the meta device it does not get as far as Triton.
        return self._launched | self._run_by_triton

    @property
    def kernels(self) -> Counter[str]:
        """What a GPU would run, by operation or Triton kernel: no views, allocations or copies to a device.

        Kernels that an operation of torch launches besides its own are counted for KERNELS_EACH only.
        """
        return self._computing + self.launches

    @property
    def num_operations(self) -> int:
        """All, including views: each takes time on the host."""
        return self.by_name.total() + self.launches.total()

    @property
    def num_computing(self) -> int:
        """Those that compute something, so launch at least one kernel on a GPU."""
        return self.num_operations - self.num_views


@contextmanager
def _triton_launches(found: Counter[str]) -> Iterator[None]:
    """Count in `found` the kernels that are run inside, by the names of their functions."""
    try:
        from triton.runtime.jit import JITFunction  # type: ignore[import-untyped]
    except ImportError:
        yield
        return
    run = JITFunction.run

    def counted(kernel: Any, *arguments: Any, **options: Any) -> Any:
        found[kernel.__name__] += 1
        return run(kernel, *arguments, **options)

    with patch.object(JITFunction, "run", counted):
        yield
