"""Objects that show themselves in a few lines, in a terminal and in a notebook."""

from __future__ import annotations

import html
from collections.abc import Mapping


class Shown:
    """Gives a class a short `repr` and a small table in notebooks; `_shown` says what stands in them."""

    def _shown(self) -> tuple[str, Mapping[str, str]]:
        """A title, and a few facts by their labels."""
        raise NotImplementedError

    def __repr__(self) -> str:
        title, facts = self._shown()
        width = max(map(len, facts), default=0)
        return "\n".join([title, *(f"  {label:{width}}  {text}" for label, text in facts.items())])

    def _repr_html_(self) -> str:
        title, facts = self._shown()
        rows = "".join(
            f'<tr><th style="text-align:left">{html.escape(label)}</th>'
            f'<td style="text-align:left">{html.escape(text)}</td></tr>'
            for label, text in facts.items()
        )
        return f"<b>{html.escape(title)}</b><table>{rows}</table>"
