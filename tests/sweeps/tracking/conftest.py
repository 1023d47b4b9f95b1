"""A sweep to follow."""

from __future__ import annotations

from tests.sweeps.watched_sweep import watched as watched
