"""Weights are read before they are loaded, where that gains something."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from lora_runner.base.read_ahead import PIECE_BYTES, read_ahead


def bytes_read() -> int:
    """By this process, from files and the page cache alike."""
    found = re.search(r"rchar: (\d+)", Path("/proc/self/io").read_text())
    assert found is not None
    return int(found[1])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two files of weights, of which one cannot be read whole in one piece."""
    for name, size in (("a", PIECE_BYTES + 5), ("b", 300_000)):
        (tmp_path / f"{name}.safetensors").write_bytes(bytes(size))
    return tmp_path


def test_all_weights_are_read(folder: Path) -> None:
    before = bytes_read()
    thread = read_ahead(str(folder))
    assert thread is not None
    assert thread.daemon  # it keeps no process alive
    thread.join(30)
    assert not thread.is_alive()
    assert bytes_read() - before >= PIECE_BYTES + 300_005


def test_nothing_is_read_where_that_gains_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert read_ahead(str(folder / "gone")) is None
    assert read_ahead("somebody/a-model-that-is-not-cached") is None
    assert read_ahead(str(folder / "a.safetensors")) is None
    (folder / "empty").mkdir()
    assert read_ahead(str(folder / "empty")) is None
    monkeypatch.setattr("psutil.virtual_memory", lambda: SimpleNamespace(available=2 * PIECE_BYTES))
    assert read_ahead(str(folder)) is None  # more than half of what is free


def test_files_that_go_are_passed_over(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[Callable[[], None]] = []
    monkeypatch.setattr("threading.Thread.start", lambda thread: started.append(thread.run))
    read_ahead(str(folder))
    (folder / "a.safetensors").unlink()
    before = bytes_read()
    started[0]()
    assert bytes_read() - before >= 300_000
