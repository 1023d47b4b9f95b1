"""Suggestions for a misspelt name."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def nearest(name: object, known: Iterable[str]) -> str:
    """The tail of an error about an unknown name: " Did you mean 'x'? Known: a, b, c.".

    Starts with a space, so that it can be put after a sentence; names keep the order given; without a
    similar name only the known ones are listed.
    """
    names = list(dict.fromkeys(known))
    if not names:
        return ""
    # Compared without case or separators, since "Cosine" and "embedding-lr-ratio" are the usual slips.
    folded = {_fold(item): item for item in reversed(names)}
    matches = difflib.get_close_matches(_fold(str(name)), list(folded), n=1, cutoff=0.6)
    hint = f" Did you mean {folded[matches[0]]!r}?" if matches else ""
    return f"{hint} Known: {', '.join(names)}."


def _fold(name: str) -> str:
    return name.strip().lower().replace("-", "_").replace(" ", "_")
