"""How many of a base's weights are loaded, told while transformers loads them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from transformers.utils import logging as transformers_logging

LOADING = "Loading weights"
"""What transformers calls the bar of its loop over the weights."""


class _Counted:
    """A progress bar's loop, whose items are counted."""

    def __init__(self, bar: Any, total: int, loaded: Callable[[int, int], None]) -> None:
        self._bar, self._total, self._loaded = bar, total, loaded

    def __iter__(self) -> Iterator[Any]:
        for number, item in enumerate(self._bar):
            self._loaded(number, self._total)
            yield item
        self._loaded(self._total, self._total)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._bar, name)


@contextmanager
def weights_counted(loaded: Callable[[int, int], None] | None) -> Iterator[None]:
    """Within the block, `loaded(done, total)` is called with every weight that transformers loads."""
    if loaded is None:
        yield
        return

    def hook(factory: Callable[..., Any], arguments: tuple[Any, ...], options: dict[str, Any]) -> Any:
        bar = factory(*arguments, **options)
        if options.get("desc") != LOADING or not arguments:
            return bar
        return _Counted(bar, len(arguments[0]), loaded)

    before = transformers_logging.set_tqdm_hook(hook)
    try:
        yield
    finally:
        transformers_logging.set_tqdm_hook(before)
