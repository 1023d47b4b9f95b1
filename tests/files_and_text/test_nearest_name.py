"""Suggestions for a misspelt name."""

from __future__ import annotations

import pytest

from files_and_text.nearest_name import nearest


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
