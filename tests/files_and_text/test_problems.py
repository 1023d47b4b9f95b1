"""InputError and the suggestions for misspelt names."""

from __future__ import annotations

import pickle

import pytest

from files_and_text.nearest_name import nearest
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


@pytest.mark.parametrize(
    ("name", "tail"),
    [
        ("cosin", " Did you mean 'cosine'? Known: linear, cosine."),
        ("Cosine", " Did you mean 'cosine'? Known: linear, cosine."),
        ("zzz", " Known: linear, cosine."),
        (3, " Known: linear, cosine."),
    ],
)
def test_nearest(name: object, tail: str) -> None:
    assert nearest(name, ["linear", "cosine"]) == tail


def test_nearest_without_names_says_nothing() -> None:
    assert nearest("a", []) == ""
    assert nearest("embedding-lr-ratio", ["embedding_lr_ratio"]).startswith(
        " Did you mean 'embedding_lr_ratio'?"
    )
