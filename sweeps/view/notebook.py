"""The live screen in a notebook: one output that is replaced as the sweep goes on."""

from __future__ import annotations

import io
from importlib import import_module
from typing import Any

from rich.console import Console, RenderableType

_PRE = '<pre style="white-space:pre;overflow-x:auto;line-height:1.25">{code}</pre>'


class NotebookScreen:
    """Has the two methods of `rich.live.Live` that the live view calls."""

    def __init__(self, width: int) -> None:
        # IPython's functions have no types.
        self._ipython: Any = import_module("IPython.display")
        self._width = width
        self._output = self._ipython.display(self._ipython.HTML(""), display_id=True)

    def update(self, renderable: RenderableType, *, refresh: bool = True) -> None:
        """Show this instead."""
        console = Console(file=io.StringIO(), record=True, width=self._width, force_jupyter=False)
        console.print(renderable)
        self._output.update(self._ipython.HTML(console.export_html(inline_styles=True, code_format=_PRE)))

    def stop(self) -> None:
        """Leave the last screen where it is."""
