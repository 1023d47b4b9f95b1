"""What running a pack on the meta device takes: counted storages, fused attention, and no kernel launches."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

META = torch.device("meta")


class LiveBytes(TorchDispatchMode):
    """Counts the bytes of storages on the meta device that are made inside, while they live.

    A value that is read off the device is zero: code that looks at a loss or compares logits goes on.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.live = self.peak = 0
        self._storages: dict[int, weakref.ref[torch.UntypedStorage]] = {}

    def __torch_dispatch__(
        self,
        func: Any,
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        aten, on_meta = torch.ops.aten, bool(args) and isinstance(args[0], Tensor) and args[0].is_meta
        if on_meta and func is aten._local_scalar_dense.default:
            return 0
        if on_meta and func is aten._to_copy.default and _is_cpu(kwargs.get("device")):
            return torch.zeros(args[0].shape, dtype=kwargs.get("dtype") or args[0].dtype)
        if on_meta and func is aten._grouped_mm.default:
            # torch's own shape function knows the GPU's kernel only, and with it bfloat16.
            out: Any = torch.empty(_grouped_shape(*args, **kwargs), dtype=args[0].dtype, device=META)
        else:
            out = func(*args, **kwargs)
        for tensor in out if isinstance(out, tuple | list) else (out,):
            if isinstance(tensor, Tensor) and tensor.is_meta:
                self._count(tensor.untyped_storage())
        return out

    def _count(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key in self._storages:
            return

        def gone(_: object) -> None:
            self.live -= size
            del self._storages[key]

        self._storages[key] = weakref.ref(storage, gone)
        self.live += size
        self.peak = max(self.peak, self.live)

    @contextmanager
    def watch(self) -> Iterator[Callable[[], int]]:
        """A function that says how many bytes lived at once since here, beyond those that live now."""
        before = self.peak = self.live
        yield lambda: self.peak - before


def _is_cpu(device: torch.device | None) -> bool:
    return device is not None and device.type == "cpu"


def _grouped_shape(a: Tensor, b: Tensor, offs: Tensor, *_: Any, **__: Any) -> tuple[int, ...]:
    """Of a grouped product: of rows with one weight a group, or of rows with rows."""
    groups = (len(offs),) if b.dim() == 2 else ()
    return (*groups, a.shape[0], b.shape[-1])


def _fused_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    *,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """Attention as a fused kernel on CPU or CUDA keeps it: q, k, v, the output, and a sum for each row.

    None takes one key head for all query heads (Falcon) unless it is told so: then all of QK^T is kept.
    """
    if key.shape[-3] != query.shape[-3] and not enable_gqa:
        written_down = torch.ops.aten._scaled_dot_product_attention_math.default
        whole: Tensor = written_down(query, key, value, attn_mask, dropout_p, is_causal, scale=scale)[0]
        return whole
    kernel = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu.default
    out: Tensor = kernel(query, key, value, dropout_p, is_causal, attn_mask=attn_mask, scale=scale)[0]
    return out


# Without it, torch writes all of QK^T down for tensors on the meta device; no other tensor is concerned.
_ON_META = torch.library.Library("aten", "IMPL")
_ON_META.impl("scaled_dot_product_attention", _fused_attention, "AutogradMeta")


@contextmanager
def no_launches() -> Iterator[None]:
    """Inside, Triton kernels (Liger's) do nothing, since what they would work on has no memory.

    What their callers allocate is seen all the same. A launch would follow null pointers.
    """
    try:
        from triton.runtime.jit import JITFunction  # type: ignore[import-untyped]
    except ImportError:
        yield
        return
    run = JITFunction.run
    JITFunction.run = lambda *_, **__: None
    try:
        yield
    finally:
        JITFunction.run = run
