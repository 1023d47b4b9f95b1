"""A library of a few files, so that tests need neither the whole standard library nor a minute."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from sweeps.demo.base_model import BaseRecipe

CLOCK = '''"""Clocks that run."""


class Clock:
    """A clock with two hands."""

    def wind(self, turns=1):
        """Wind the spring
        by so many turns.

        A second paragraph that nobody asked for.
        """
        # Turn the key gently until it stops.
        return turns

    def strike(self): "Strike the hour once and fall silent."

    async def wait(self, *, until: int = 0) -> None:
        r"""Wait until the given hour has struck."""

    def rest(self):
        """Turn the key gently until it stops."""

    def tick(self):
        """Short one."""


def outer():
    x = 1; "Not a docstring, only a string in the way."

    def inner():
        """Do what the outer one asked for."""
        return x
    return inner
'''
BELL = '''def ring(bell):
    """Wind the spring by so many turns."""


if True:
    def chime(bell, "é" == bell):
        pass
'''
TOWER = '''import ast

try:
    import bells
except ImportError:
    def climb(tower, steps=len("é")):
        """Climb é steps of the tower, one after another."""
        return tower
'''


@pytest.fixture
def library(tmp_path: Path) -> Path:
    """The folder of a small library with the oddities of the real one."""
    root = tmp_path / "library"
    for name, text in {
        "clock.py": CLOCK,
        "broken.py": BELL,
        "old/bell.py": BELL.split("\n\n\n")[0] + "\n",
        "old/tower.py": TOWER,
        "test/test_clock.py": 'def skipped():\n    """Nothing of this folder is read at all."""\n',
    }.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return root


@pytest.fixture
def long_library(library: Path) -> Path:
    """The same with enough text for a few pretraining sequences, and many functions."""
    functions = [
        f'def turn_{number}(wheel, by={number}):\n    """Turn wheel number {number} forward a little."""\n'
        f"    total = wheel.position + {number}\n"
        f"    return [total % step for step in range(1, {number} + 2)]\n"
        for number in range(200)
    ]
    text = "\n\n".join(functions)
    ast.parse(text)
    (library / "wheels.py").write_text(text)
    return library


@pytest.fixture
def small_recipe() -> BaseRecipe:
    """A base of a few thousand parameters that trains in well under a second."""
    return BaseRecipe(
        vocab_size=300,
        hidden_size=64,
        intermediate_size=64,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        sequence_length=32,
        batch_size=4,
        max_steps=6,
        warmup_steps=1,
    )
