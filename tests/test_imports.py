"""Imports between the rooms run one way."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ALLOWED = {
    "search_spaces": {"search_spaces"},
    "lora_runner": {"lora_runner"},
    "results": {"results", "search_spaces"},
    "sweeps": {"sweeps", "results", "lora_runner", "search_spaces"},
}
FORBIDDEN = {
    "search_spaces": {"torch", "transformers", "ray", "optuna"},
    "lora_runner": {"ray", "optuna"},
    "results": {"ray", "torch"},
    "sweeps": set[str](),
}
LOADS_ADAPTERS = {"results/adapter_files.py"}
"""The one place in `results` that may load a model, to check an adapter."""


def imported(file: Path) -> Iterator[tuple[str, int]]:
    """(top-level package, line) of every import in a file, those inside of functions included."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name.split(".")[0], node.lineno
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            yield node.module.split(".")[0], node.lineno


@pytest.mark.parametrize("room", list(ALLOWED))
def test_a_room_imports_only_what_it_may(room: str) -> None:
    files = sorted((ROOT / room).rglob("*.py"))
    assert files
    wrong = []
    for file in files:
        place = file.relative_to(ROOT).as_posix()
        for package, line in imported(file):
            ours = package in ALLOWED and package not in ALLOWED[room]
            theirs = package in FORBIDDEN[room] and place not in LOADS_ADAPTERS
            if ours or theirs:
                wrong.append(f"{place}:{line} imports {package}")
    assert wrong == []


def test_only_sweeps_imports_ray() -> None:
    users = {
        f.relative_to(ROOT).parts[0]
        for r in ALLOWED
        for f in (ROOT / r).rglob("*.py")
        if "ray" in dict(imported(f))
    }
    assert users == {"sweeps"}
