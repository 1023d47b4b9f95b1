"""A folder with what a small sweep file needs, and fixtures that read a text as one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from files_and_text.problems import Problem
from sweeps.config import SweepConfig, load_sweep
from sweeps.errors import ConfigError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "train.jsonl").write_text('{"text": "hello"}\n')
    return tmp_path


@pytest.fixture
def load(folder: Path) -> Callable[[str], SweepConfig]:
    def load(text: str) -> SweepConfig:
        file = folder / "s.yaml"
        file.write_text(text)
        return load_sweep(file, environ={})

    return load


@pytest.fixture
def problems(folder: Path) -> Callable[[str], list[Problem]]:
    """The problems of a sweep file with this text."""

    def problems(text: str) -> list[Problem]:
        file = folder / "s.yaml"
        file.write_text(text)
        with pytest.raises(ConfigError) as caught:
            load_sweep(file, environ={})
        return caught.value.problems

    return problems
