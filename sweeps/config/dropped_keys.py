"""Keys that sweep files of earlier versions had, and what took their place.

The resolved sweep file of a run folder lists every key, so one that an earlier version wrote holds them
although nobody asked for them: there they are left out. In a user's own file the error names the new key.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from files_and_text.yaml_lines import KeyPath

DROPPED: Mapping[KeyPath, str] = MappingProxyType(
    {("reliability", "keep_frozen"): "frozen_gib, in GiB of disk instead of a number of trials"}
)
"""Section and key -> the key of that section that took its place, and how it differs."""
