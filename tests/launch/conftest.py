"""Stand-ins for programs of a cluster, and an environment in which they are found first."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

TOKEN = "0123456789abcdef0123456789abcdef"


@pytest.fixture
def stand_in(tmp_path: Path) -> Callable[[str, str], Path]:
    """Writes a shell script that is found before the real program; returns the file of its calls."""
    folder = tmp_path / "stand-ins"
    folder.mkdir()

    def write(name: str, body: str) -> Path:
        calls = tmp_path / f"{name}.calls"
        calls.touch()
        program = folder / name
        program.write_text(f'#!/usr/bin/env bash\necho "$*" >>"{calls}"\n{body}\n', encoding="utf-8")
        program.chmod(0o755)
        return calls

    return write


@pytest.fixture
def clean_environ(tmp_path: Path) -> dict[str, str]:
    """A home with a private token, stand-ins first in PATH, and no settings of Ray, Slurm or ours."""
    home = tmp_path / "home"
    token = home / ".ray" / "auth_token"
    token.parent.mkdir(parents=True, mode=0o700)
    token.write_text(TOKEN, encoding="utf-8")
    token.chmod(0o600)
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("RAY_", "SLURM_", "SWEEPS_")) and name != "TMPDIR"
    }
    path = f"{tmp_path / 'stand-ins'}:{Path(sys.executable).parent}:{os.environ['PATH']}"
    return {**kept, "HOME": str(home), "PATH": path}
