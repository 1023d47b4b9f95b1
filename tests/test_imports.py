"""Imports run one way: between the packages, between the folders inside them, and between modules."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ALLOWED = {
    "files_and_text": set[str](),
    "search_spaces": {"files_and_text"},
    "lora_runner": {"files_and_text"},
    "results": {"files_and_text", "search_spaces"},
    "sweeps": {"files_and_text", "results", "lora_runner", "search_spaces"},
}
FORBIDDEN = {
    "files_and_text": {"torch", "transformers", "ray", "optuna", "pandas", "numpy", "pydantic"},
    "search_spaces": {"torch", "transformers", "ray", "optuna", "pandas"},
    "lora_runner": {"ray", "optuna"},
    "results": {"ray", "torch"},
    "sweeps": set[str](),
}
LOADS_ADAPTERS = {"results/adapter_files.py"}
"""The one module in `results` that may load a model, to check an adapter."""


@cache
def modules() -> Mapping[str, Path]:
    """Dotted name -> file, of the five packages; a folder's `__init__.py` goes by the folder's name."""
    files = (file for package in ALLOWED for file in (ROOT / package).rglob("*.py"))
    return {".".join(name_parts(file)): file for file in files}


def name_parts(file: Path) -> tuple[str, ...]:
    parts = file.relative_to(ROOT).with_suffix("").parts
    return parts[:-1] if parts[-1] == "__init__" else parts


def imported(file: Path) -> Iterator[tuple[str, int]]:
    """(dotted name, line) of every import in a file, those inside of functions included.

    `from a import b` counts as `a.b` where that is one of our modules.
    """
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, node.lineno
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            for alias in node.names:
                name = f"{node.module}.{alias.name}"
                yield name if name in modules() else node.module, node.lineno


@cache
def imports() -> Mapping[str, frozenset[str]]:
    """Module -> our modules that it imports."""
    return {
        name: frozenset(other for other, _ in imported(file) if other in modules() and other != name)
        for name, file in modules().items()
    }


def cycle(graph: Mapping[str, Iterable[str]]) -> list[str]:
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as found:
        return list(found.args[1])
    return []


def members(folder: str) -> dict[str, set[str]]:
    """The files and subfolders of a folder -> those of them that each imports anything of."""
    depth = folder.count(".") + 1

    def member(name: str) -> str | None:
        if name == folder:
            return f"{folder}.__init__"
        inside = name.startswith(f"{folder}.")
        return ".".join(name.split(".")[: depth + 1]) if inside else None

    graph: dict[str, set[str]] = {}
    for name, others in imports().items():
        if (source := member(name)) is not None:
            targets = {target for other in others if (target := member(other)) is not None}
            graph.setdefault(source, set()).update(targets - {source})
    return graph


FOLDERS = sorted({name for name, file in modules().items() if file.name == "__init__.py"})


@pytest.mark.parametrize("package", list(ALLOWED))
def test_a_package_imports_only_what_it_may(package: str) -> None:
    files = sorted((ROOT / package).rglob("*.py"))
    assert files
    wrong = []
    for file in files:
        path = file.relative_to(ROOT).as_posix()
        for name, line in imported(file):
            top = name.split(".")[0]
            ours = top in ALLOWED and top not in ALLOWED[package] | {package}
            theirs = top in FORBIDDEN[package] and path not in LOADS_ADAPTERS
            if ours or theirs:
                wrong.append(f"{path}:{line} imports {top}")
    assert wrong == []


def test_only_sweeps_imports_ray() -> None:
    users = {
        name_parts(file)[0]
        for file in modules().values()
        if any(name.split(".")[0] == "ray" for name, _ in imported(file))
    }
    assert users == {"sweeps"}


def test_no_modules_import_each_other_in_a_cycle() -> None:
    assert cycle(imports()) == []


@pytest.mark.parametrize("folder", FOLDERS)
def test_files_and_subfolders_of_a_folder_import_one_way(folder: str) -> None:
    assert cycle(members(folder)) == []


def test_a_cycle_is_found() -> None:
    assert cycle({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}})
    assert members("lora_runner")["lora_runner.session"] >= {"lora_runner.pack", "lora_runner.errors"}


def test_every_folder_says_what_it_holds() -> None:
    """One sentence at the head of each subpackage, and few enough files to be seen at once."""
    for folder in FOLDERS:
        file = modules()[folder]
        assert ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))), folder
        assert len(list(file.parent.glob("*.py"))) <= 14, folder
