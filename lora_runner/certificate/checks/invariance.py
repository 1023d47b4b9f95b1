"""Whether a trial's results are the same bits alone and in company: other heights, places and neighbours."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lora_runner.certificate.ways.case import Case, Tensors

NEIGHBOURS = ("random", "huge", "NaN")
"""What the other rows of a pass hold."""
HUGE = 1e30
"""Factor on huge neighbours: sums of their products overflow."""
INTEGERS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
"""By bytes of an element: a type that compares bits, in which NaN equals itself."""


@dataclass(frozen=True)
class Plan:
    """Which sizes are tried."""

    trial_rows: tuple[int, ...]
    heights: tuple[int, ...]
    """Rows of the whole pass."""


ON_CUDA = Plan((1, 37, 266), (2, 16, 64, 128, 192, 256, 320, 512, 1024, 2048, 2176, 4096, 8192))
"""From one row to as many as 32 trials have, with heights between which libraries change kernels."""
ON_CPU = Plan((1, 7, 40), (2, 8, 17, 64, 130))


@dataclass(frozen=True)
class Outcome:
    """What was found for one case."""

    comparisons: int
    difference: str | None
    error: float | None
    rows: int = 0
    """Of the highest pass that was compared."""


def check_case(case: Case, plan: Plan, draws: random.Random, alive: Callable[[], None]) -> Outcome:
    """Compare a trial alone with the same trial in passes of other heights, places and neighbours.

    Ends at the first difference. `draws` chooses places and blocks; `alive` is called for each height.
    """
    comparisons, error, highest = 0, 0.0, 0
    for num_rows in plan.trial_rows:
        if case.max_rows is not None and num_rows > case.max_rows:
            continue
        trial = case.draw(num_rows)
        alone = _detached(case.by_block([trial])[0])
        here = relative_error(alone, case.reference(trial))
        if not here <= case.bound:
            wrong = f"{num_rows} rows alone differ from float64 by {here:.1e}, more than {case.bound:.1e}"
            return Outcome(comparisons, wrong, here)
        error = max(error, here)
        comparisons += 1
        if text := _difference(alone, case.by_block([trial])[0]):
            return Outcome(comparisons, f"{num_rows} rows alone, computed twice: {text}", error)
        highest = max(highest, num_rows)
        for height in plan.heights:
            alive()
            if height <= num_rows or (case.max_rows is not None and height > case.max_rows):
                continue
            for neighbours in NEIGHBOURS:
                before = draws.randint(0, height - num_rows)
                left = [spoiled(case.draw(size), neighbours) for size in cut(before, draws)]
                after = height - num_rows - before
                right = [spoiled(case.draw(size), neighbours) for size in cut(after, draws)]
                comparisons += 1
                if text := _difference(alone, case.by_block([*left, trial, *right])[len(left)]):
                    where = (
                        f"{num_rows} rows of {height}, from row {before} on, beside {neighbours} neighbours"
                    )
                    return Outcome(comparisons, f"{where}: {text}", error)
            highest = max(highest, height)
    return Outcome(comparisons, None, error, highest)


def spoiled(block: Tensors, neighbours: str) -> Tensors:
    """A block whose floating-point values are as `neighbours` says; others stay, such as token ids."""
    if neighbours == "random":
        return block
    factor = HUGE if neighbours == "huge" else torch.nan
    return tuple(x * factor if x.is_floating_point() else x for x in block)


def cut(num_rows: int, draws: random.Random) -> list[int]:
    """`num_rows` as the rows of up to three blocks."""
    if num_rows < 3:
        return [num_rows] if num_rows else []
    ends = sorted(draws.sample(range(1, num_rows), draws.randint(0, 2)))
    return [stop - start for start, stop in zip([0, *ends], [*ends, num_rows], strict=True)]


def relative_error(results: Sequence[Tensor], reference: Sequence[Tensor]) -> float:
    """The largest error of a result, as the norm of its difference over the norm of the largest reference.

    Not over its own, which may be zero: a token alone has no gradient for its query.
    """
    scale = max(float(exact.norm()) for exact in reference)
    pairs = zip(results, reference, strict=True)
    errors = [float((result.double() - exact).norm()) / scale for result, exact in pairs]
    return math.nan if any(map(math.isnan, errors)) else max(errors)


def _difference(alone: Tensors, found: Tensors) -> str | None:
    """How results differ in their bits, in words; None if they do not."""
    for index, (one, other) in enumerate(zip(alone, found, strict=True)):
        if one.shape != other.shape:
            return f"result {index} has shape {tuple(other.shape)}, alone {tuple(one.shape)}"
        as_integers = INTEGERS[one.element_size()]
        wrong = one.contiguous().view(as_integers) != other.contiguous().view(as_integers)
        if count := int(wrong.sum()):
            at = tuple(int(i) for i in wrong.nonzero()[0])
            result = f"result {index}: " if len(alone) > 1 else ""
            return (
                f"{result}{count} of {one.numel()} elements differ, the first at {at}: "
                f"{float(other[at]):.9g}, alone {float(one[at]):.9g}"
            )
    return None


def _detached(results: Tensors) -> Tensors:
    """Copies of what lies in buffers that the next pass may overwrite."""
    return tuple(result.detach().clone() for result in results)
