"""Support for a pack on the meta device: counted storages, fused attention, no kernel launches."""

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
    """Counts the bytes of live storages on the meta device that were made inside.

    A value read from the device is zero, so that code which reads a loss or compares logits continues.
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
            # torch's own shape function supports only the GPU kernel, and so only bfloat16.
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

        def released(_: object) -> None:
            self.live -= size
            del self._storages[key]

        self._storages[key] = weakref.ref(storage, released)
        self.live += size
        self.peak = max(self.peak, self.live)

    def take_peak(self) -> int:
        """The most bytes alive since this was last asked, or since the watch began."""
        found, self.peak = self.peak, self.live
        return found

    @contextmanager
    def watch(self) -> Iterator[Callable[[], int]]:
        """A function that returns the peak since here, beyond the bytes alive now."""
        before = self.peak = self.live
        yield lambda: self.peak - before


def _is_cpu(device: torch.device | None) -> bool:
    return device is not None and device.type == "cpu"


def _grouped_shape(a: Tensor, b: Tensor, offs: Tensor, *_: Any, **__: Any) -> tuple[int, ...]:
    """Shape of a grouped matmul's result: rows with one weight per group, or rows with rows."""
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
    """Attention with the memory of a fused kernel on CPU or CUDA: q, k, v, the output, and a sum per row.

    Without `enable_gqa`, none broadcasts one key head to all query heads (Falcon): then QK^T is kept.
    """
    if key.shape[-3] != query.shape[-3] and not enable_gqa:
        unfused = torch.ops.aten._scaled_dot_product_attention_math.default
        whole: Tensor = unfused(query, key, value, attn_mask, dropout_p, is_causal, scale=scale)[0]
        return whole
    kernel = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu.default
    out: Tensor = kernel(query, key, value, dropout_p, is_causal, attn_mask=attn_mask, scale=scale)[0]
    return out


# Otherwise torch materialises QK^T for tensors on the meta device; other tensors are not affected.
_ON_META = torch.library.Library("aten", "IMPL")
_ON_META.impl("scaled_dot_product_attention", _fused_attention, "AutogradMeta")


@contextmanager
def no_launches() -> Iterator[None]:
    """Turn launches of Triton kernels (Liger's) into no-ops: they would follow null pointers.

    What their callers allocate is still counted.
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
