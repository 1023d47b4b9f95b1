"""What the base reads: the library without the answers of the fine-tune."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from sweeps.demo.library_sources import docstring_node, library_root, pretraining_text, source_files


def functions_with_docstring(text: str) -> list[str]:
    nodes = [
        node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]
    return [node.name for node in nodes if docstring_node(node) is not None]


def test_files_are_in_order_without_tests_and_unparsable_ones(library: Path) -> None:
    assert [source.name for source in source_files(library)] == ["clock.py", "old/bell.py", "old/tower.py"]


def test_function_docstrings_are_gone_and_the_rest_still_parses(library: Path) -> None:
    for source in source_files(library):
        assert functions_with_docstring(source.text)
        text = pretraining_text(source)
        assert functions_with_docstring(text) == []
        assert text.count("def ") == source.text.count("def ")


def test_everything_but_function_docstrings_stays(library: Path) -> None:
    clock, _, tower = (pretraining_text(source) for source in source_files(library))
    assert '"""Clocks that run."""' in clock
    assert '"""A clock with two hands."""' in clock
    assert "Not a docstring" in clock
    assert "    def wind(self, turns=1):\n        # Turn the key" in clock
    assert "    def strike(self): pass\n" in clock
    assert 'steps=len("é")):\n        return tower' in tower


def test_an_assignment_after_a_docstring_on_its_line_stays(tmp_path: Path) -> None:
    (tmp_path / "one.py").write_text('def f():\n    "Say é."; x = 1\n    return x\n', encoding="utf-8")
    text = pretraining_text(source_files(tmp_path)[0])
    assert "Say" not in text
    assert "x = 1" in text


@pytest.mark.slow
def test_the_whole_library_loses_every_function_docstring() -> None:
    sources = source_files(library_root())
    assert len(sources) > 200
    for source in sources:
        left = [
            node.name
            for node in ast.walk(source.tree)
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and docstring_node(node) is not None
        ]
        if left:
            assert functions_with_docstring(pretraining_text(source)) == [], source.name
