"""InputError: all problems of one input, each with its file and line."""

from __future__ import annotations

import pickle

import pytest

from files_and_text.problems import InputError, Problem


def test_all_problems_one_per_line() -> None:
    error = InputError([Problem("a.", "f.yaml", 3), Problem("b.", "f.yaml"), Problem("c.", None, 4), "d."])
    assert str(error) == "f.yaml:3: a.\nf.yaml: b.\nline 4: c.\nd."
    assert [problem.message for problem in error.problems] == ["a.", "b.", "c.", "d."]


def test_survives_the_way_between_processes() -> None:
    error = pickle.loads(pickle.dumps(InputError([Problem("a.", "f.yaml", 3)])))
    assert str(error) == "f.yaml:3: a."
    assert error.problems == [Problem("a.", "f.yaml", 3)]


def test_an_error_without_problems_is_a_mistake_of_the_caller() -> None:
    with pytest.raises(TypeError):
        InputError([])
