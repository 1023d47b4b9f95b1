"""Sentences are made where they are shown: what measures and decides imports none of them."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).parents[3]


def test_measuring_and_deciding_know_no_sentences():
    files = [*(ROOT / "results/verdict").glob("*.py"), ROOT / "results/published/decide.py"]
    assert len(files) > 10
    assert [file.name for file in files if "from results.text" in file.read_text(encoding="utf-8")] == []
