"""What a mask function of transformers lets a token see, if that is a window of the tokens before it."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from types import FunctionType
from typing import Any

import torch
from torch import Tensor

from lora_runner.errors import first_line
from lora_runner.fused.compute_path import NotFusedError

LONGEST = 1 << 20
"""A mask is causal if the last of so many tokens sees all of them."""
SQUARE = 96
"""All pairs of the first tokens are looked at."""
NUM_ROWS = 256
"""And these rows of a long sequence, around both ends of the window."""
NEITHER = "its mask is neither causal nor a sliding window"


def visible_window(mask_function: Callable[..., Any]) -> int:
    """W where a token sees itself and the W - 1 tokens before it; 0 where it sees all before it.

    `mask_function` is of batch, head, query and key indices, as transformers makes it. It is evaluated on the
    host, once for all functions with the same code and constants. NotFusedError: it sees other tokens, or
    depends on tensors, so that looking at it says nothing of later passes.
    """
    found = _window(_Constants(mask_function))
    if isinstance(found, str):
        raise NotFusedError(found)
    return found


class _Constants:
    """A function, equal to any other with the same code and constants. NotFusedError where it has more."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function
        self._key = _constants_of(function)

    def __hash__(self) -> int:
        return hash(self._key)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Constants) and self._key == other._key


def _constants_of(value: Any) -> Any:
    if value is None or isinstance(value, (bool, int, float, str)):
        return type(value), value
    if isinstance(value, (tuple, list)):
        return tuple(map(_constants_of, value))
    if isinstance(value, FunctionType):
        cells = [cell.cell_contents for cell in value.__closure__ or ()]
        return value.__code__, _constants_of([*cells, *(value.__defaults__ or ())])
    raise NotFusedError(f"its mask depends on a {type(value).__name__}")


@cache
def _window(constants: _Constants) -> int | str:
    """The window, or why there is none."""

    def seen(query: Tensor, key: Tensor) -> Tensor:
        zero = torch.zeros(1, 1, dtype=torch.int64)
        found: Tensor = constants.function(zero, zero, query, key)
        return found.broadcast_to(torch.broadcast_shapes(query.shape, key.shape))

    try:
        last = seen(torch.tensor([[LONGEST - 1]]), torch.arange(LONGEST)[None])
        window = int(last.sum())
        if window == 0:
            return NEITHER
        small = torch.arange(SQUARE)
        pairs = [(small[:, None], small[None])]
        generator = torch.Generator().manual_seed(0)
        rows = torch.randint(LONGEST, (NUM_ROWS, 1), generator=generator)
        near = torch.arange(-3, 4)
        far = torch.randint(LONGEST, (NUM_ROWS, 64), generator=generator)
        within = torch.randint(2 * window, (NUM_ROWS, 64), generator=generator)
        keys = torch.cat([rows - near, rows - window + near, rows - within, far], dim=1)
        pairs.append((rows, keys.clamp(0, LONGEST - 1)))
        for query, key in pairs:
            expected = (key <= query) & (key > query - window)
            if not torch.equal(seen(query, key), expected):
                return NEITHER
    except Exception as error:  # whatever a model's own function raises on plain indices
        return f"its mask cannot be evaluated: {type(error).__name__}: {first_line(error)}"
    return 0 if window == LONGEST else window
