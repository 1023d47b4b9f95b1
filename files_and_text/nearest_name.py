"""Suggestions for a misspelt name."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def nearest(name: object, known: Iterable[str]) -> str:
    """The end of an error about an unknown name: " Did you mean 'x'? Known: a, b, c.".

    Starts with a space, so that it can follow a sentence; "" where no names are known.
    """
    names = list(dict.fromkeys(known))
    return f"{did_you_mean(name, names)} Known: {', '.join(names)}." if names else ""


def did_you_mean(name: object, known: Iterable[str]) -> str:
    """ " Did you mean 'x'?", or "" where no known name is similar."""
    found = similar(name, known)
    return "" if found is None else f" Did you mean {found!r}?"


def similar(name: object, known: Iterable[str]) -> str | None:
    """The known name that is most like this one; None where none is similar."""
    # Compared without case or separators, since "Cosine" and "embedding-lr-ratio" are the usual slips.
    folded = {_fold(item): item for item in reversed(list(known))}
    matches = difflib.get_close_matches(_fold(str(name)), list(folded), n=1, cutoff=0.6)
    return folded[matches[0]] if matches else None


def _fold(name: str) -> str:
    return name.strip().lower().replace("-", "_").replace(" ", "_")
