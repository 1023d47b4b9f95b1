"""Marks of modules that start a real Ray."""

from __future__ import annotations

import pytest

ON_RAY = [
    pytest.mark.slow,
    # Ray's own sockets and files, closed when its processes end.
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]
