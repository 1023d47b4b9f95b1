"""Private names of Optuna are used in one module, so that a new version of it is checked in one place."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
from collections.abc import Iterator
from pathlib import Path

import optuna

ROOT = Path(__file__).parents[3]
ALLOWED = ROOT / "sweeps" / "storage" / "optuna_private.py"
FILES = [
    file
    for package in ("search_spaces", "results", "sweeps", "benchmarks")
    for file in sorted((ROOT / package).rglob("*.py"))
    if file != ALLOWED
]


def own_names(class_: type) -> set[str]:
    """Private names that a class defines or takes from `self`."""
    pattern = r"\b(?:self\.|super\(\)\.|def )(_[a-z]\w*)"
    return set(re.findall(pattern, inspect.getsource(class_)))


OBJECTS = (optuna.Study, optuna.trial.Trial, optuna.trial.FrozenTrial, optuna.storages.RDBStorage)
ATTRIBUTES = {name for each in OBJECTS for base in each.__mro__[:-1] for name in own_names(base)}


def private_names(file: Path) -> Iterator[str]:
    """Private modules and names of Optuna that a file imports, and private attributes of its objects."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        names: list[str] = []
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("optuna"):
            names = [*str(node.module).split("."), *(alias.name for alias in node.names)]
        elif isinstance(node, ast.Import):
            names = [part for alias in node.names for part in alias.name.split(".")]
        elif isinstance(node, ast.Attribute) and node.attr in ATTRIBUTES:
            names = [node.attr] if ast.unparse(node.value) not in ("self", "cls", "super()") else []
        for name in names:
            if re.match("_[a-z]", name):
                yield f"{file.relative_to(ROOT)}:{getattr(node, 'lineno', 0)}: {name}"


def test_no_other_module_uses_private_names() -> None:
    assert [name for file in FILES for name in private_names(file)] == []


def test_the_search_finds_what_the_one_module_uses() -> None:
    found = {line.rpartition(" ")[2] for line in private_names(ALLOWED)}
    assert found >= {"_create_scoped_session", "_rdb", "_frozen", "_storage", "_study_id", "_trial_id"}


def test_subclasses_of_optunas_classes_neither_use_nor_override_private_names() -> None:
    classes = set[type]()
    for file in FILES:
        if re.search(r"^from .*optuna", file.read_text(encoding="utf-8"), re.MULTILINE):
            module = importlib.import_module(".".join(file.relative_to(ROOT).with_suffix("").parts))
            found = [each for _, each in inspect.getmembers(module, inspect.isclass)]
            classes |= {each for each in found if each.__module__ == module.__name__}
    checked = set()
    for each in classes:
        bases = [base for base in each.__mro__ if base.__module__.startswith("optuna.")]
        if theirs := {name for base in bases for name in own_names(base)}:
            checked.add(each.__name__)
            assert not theirs & own_names(each), each
    assert checked >= {"SqlStudyStorage", "JournalStudyStorage", "SuccessiveHalving"}
