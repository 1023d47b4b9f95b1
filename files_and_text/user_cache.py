"""The user's cache folder for this program."""

from __future__ import annotations

import os
from pathlib import Path


def user_cache() -> Path:
    """The folder in `$XDG_CACHE_HOME` or else `~/.cache`; it may not exist yet."""
    named = os.environ.get("XDG_CACHE_HOME", "")
    # The XDG base directory specification says to ignore relative paths.
    parent = Path(named) if Path(named).is_absolute() else Path.home() / ".cache"
    return parent / "qlora-sweeps"
