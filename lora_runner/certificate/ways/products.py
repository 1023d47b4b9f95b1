"""Ways to multiply rows by a frozen weight, forward and backward."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from lora_runner.certificate.certificate import Check
from lora_runner.certificate.model_sizes import ModelSizes
from lora_runner.certificate.ways.case import Case, RowCase, Setting, Tensors
from lora_runner.certificate.ways.references import rounding
from lora_runner.kernels.frozen_product import ROW_BYTES, ProductSize, has_aligned_rows
from lora_runner.layers.block_matmul import Blocks, matmul_shared

Product = Callable[[Tensor, Tensor, bool, Sequence[int]], Tensor]
"""x (T, k), a weight, whether it is (n, k) rather than (k, n), the rows of each block -> (T, n)."""
LARGEST = {"cuda": 1 << 28, "cpu": 1 << 22}
"""Elements of an output; a wider one has fewer rows, as the output layer in a pack."""


def cases(setting: Setting, product: Product, *, over_all_rows: bool = True) -> Iterator[Case]:
    """Both directions of all frozen products of a model; only some sizes are multiplied over all rows."""
    for k, n in layers(setting.sizes):
        weight = setting.normal(n, k, scale=k**-0.5)  # as a linear layer stores it
        for forward in (True, False):
            case = _case(setting, product, weight, forward=forward)
            if over_all_rows and not has_aligned_rows(k, n, setting.dtype):
                case.not_computed = (
                    f"rows of {k} and {n} elements are no multiples of {ROW_BYTES} bytes, a product for each "
                    "trial takes its place"
                )
            yield case


def layers(sizes: ModelSizes) -> list[tuple[int, int]]:
    """(in, out) of all frozen products of a model, the output layer's too."""
    output = (sizes.hidden, sizes.vocabulary)
    return [*sizes.linears, *([] if output in sizes.linears else [output])]


def checked_rows(sizes: ModelSizes, checks: Sequence[Check]) -> dict[ProductSize, int]:
    """By product, the rows of the highest pass in which `checks` of one way found it invariant."""
    rows = {check.case: check.rows for check in checks if check.is_invariant}
    found = {}
    for k, n in layers(sizes):
        for size, name in (
            ((k, n, True), _name(k, n, forward=True)),
            ((n, k, False), _name(k, n, forward=False)),
        ):
            if name in rows:
                found[size] = rows[name]
    return found


def _name(k: int, n: int, *, forward: bool) -> str:
    return f"forward {k} to {n}" if forward else f"backward {n} to {k}"


def _case(setting: Setting, product: Product, weight: Tensor, *, forward: bool) -> RowCase:
    n, k = weight.shape
    wide = k if forward else n
    most = LARGEST[setting.device.type]

    def function(x: Tensor, *, sizes: Sequence[int]) -> Tensors:
        return (product(x, weight, forward, sizes),)

    def reference(x: Tensor) -> Tensors:
        exact = weight.double()
        return (x @ (exact.t() if forward else exact),)

    return RowCase(
        _name(k, n, forward=forward),
        draw=lambda rows: (setting.normal(rows, wide),),
        function=function,
        reference=reference,
        bound=rounding(setting.dtype, 1, wide),
        work_per_row=2.0 * k * n,
        unit="TFLOP/s",
        max_rows=most // max(k, n),
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
    from lora_runner.kernels.dense_matmul import dense_matmul

    return dense_matmul(x, weight, transposed=transposed, halves_last=halves_last)
