"""The tree of errors and their exit codes."""

from __future__ import annotations

import pickle

import pytest

from files_and_text.problems import Problem
from sweeps import errors


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("ConfigError", 2),
        ("StudyMismatch", 2),
        ("StorageUnreachable", 2),
        ("RunFolderError", 2),
        ("SweepFailed", 1),
    ],
)
def test_exit_codes(name: str, code: int) -> None:
    error = getattr(errors, name)
    assert issubclass(error, errors.SweepError)
    assert error.exit_code == code
    assert f"{name} " in (errors.__doc__ or "")


def test_config_errors_survive_pickling_and_print_one_problem_per_line() -> None:
    error = errors.ConfigError([Problem("a is wrong.", "s.yaml", 3), "b is wrong."])
    again = pickle.loads(pickle.dumps(error))
    assert str(again) == str(error) == "s.yaml:3: a is wrong.\nb is wrong."
    assert again.problems == error.problems


def test_an_error_without_a_problem_is_a_bug() -> None:
    with pytest.raises(TypeError):
        errors.ConfigError([])
