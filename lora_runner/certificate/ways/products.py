"""Ways to multiply rows by a frozen weight, forward and backward."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from lora_runner.certificate.ways.case import Case, RowCase, Setting, Tensors
from lora_runner.certificate.ways.references import rounding
from lora_runner.layers.block_matmul import Blocks, matmul_shared

Product = Callable[[Tensor, Tensor, bool, Sequence[int]], Tensor]
"""x (T, k), a weight, whether it is (n, k) rather than (k, n), the rows of each block -> (T, n)."""
LARGEST = {"cuda": 1 << 28, "cpu": 1 << 22}
"""Elements of an output; a wider one has fewer rows, as the output layer in a pack."""


def cases(setting: Setting, product: Product, *, with_output_layer: bool = True) -> Iterator[Case]:
    """Both directions of all frozen products of a model."""
    sizes = setting.sizes
    layers = list(sizes.linears)
    if with_output_layer and (sizes.hidden, sizes.vocabulary) not in layers:
        layers.append((sizes.hidden, sizes.vocabulary))
    for k, n in layers:
        weight = setting.normal(n, k, scale=k**-0.5)  # as a linear layer stores it
        yield _case(setting, product, weight, forward=True)
        yield _case(setting, product, weight, forward=False)


def _case(setting: Setting, product: Product, weight: Tensor, *, forward: bool) -> RowCase:
    n, k = weight.shape
    wide, out = (k, n) if forward else (n, k)
    most = LARGEST[setting.device.type]

    def function(x: Tensor, *, sizes: Sequence[int]) -> Tensors:
        return (product(x, weight, forward, sizes),)

    def reference(x: Tensor) -> Tensors:
        exact = weight.double()
        return (x @ (exact.t() if forward else exact),)

    return RowCase(
        f"{'forward' if forward else 'backward'} {wide} to {out}",
        draw=lambda rows: (setting.normal(rows, wide),),
        function=function,
        reference=reference,
        bound=rounding(setting.dtype, 1, wide),
        work_per_row=2.0 * k * n,
        unit="TFLOP/s",
        max_rows=most // max(wide, out),
    )


def by_block(x: Tensor, weight: Tensor, transposed: bool, sizes: Sequence[int]) -> Tensor:
    """Grouped by block, as on the general path."""
    return matmul_shared(x, weight.t() if transposed else weight, Blocks(sizes))


def over_all_rows(x: Tensor, weight: Tensor, transposed: bool, sizes: Sequence[int]) -> Tensor:
    """One product of the library over the rows of all blocks."""
    return torch.mm(x, weight.t() if transposed else weight)


def fixed_kernel(
    x: Tensor, weight: Tensor, transposed: bool, sizes: Sequence[int], *, halves_last: bool = True
) -> Tensor:
    """One product of a kernel with one configuration over the rows of all blocks."""
    from lora_runner.kernels.dense_matmul import dense_matmul, is_supported

    k, n = weight.shape[::-1] if transposed else weight.shape
    if not is_supported(k, n, x.dtype):
        raise ValueError(f"the kernel's rows are multiples of 16 bytes, got {k} to {n} in {x.dtype}")
    return dense_matmul(x, weight, transposed=transposed, halves_last=halves_last)
