"""Files and folders are written whole or not at all."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from files_and_text.atomic_files import atomic_write, atomic_write_json, replace_folder, whole_folder


def test_atomic_write_replaces_and_leaves_nothing_else(tmp_path):
    path = tmp_path / "deep" / "file.txt"
    atomic_write(path, "old")
    atomic_write(path, "neu ü")
    assert path.read_text(encoding="utf-8") == "neu ü"
    assert [item.name for item in path.parent.iterdir()] == ["file.txt"]


def test_a_failed_write_keeps_the_old_file(tmp_path):
    path = tmp_path / "file.json"
    atomic_write_json(path, {"a": 1})
    with pytest.raises(TypeError, match="numbers, text, lists and mappings"):
        atomic_write_json(path, {"a": object()})
    with pytest.raises(UnicodeEncodeError):
        atomic_write(path, "half a character \ud800")
    assert json.loads(path.read_text()) == {"a": 1}
    assert [item.name for item in tmp_path.iterdir()] == ["file.json"]


def test_files_have_the_users_usual_permissions(tmp_path):
    ordinary = tmp_path / "ordinary"
    ordinary.write_text("")
    assert atomic_write(tmp_path / "ours", "").stat().st_mode == ordinary.stat().st_mode


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o027, 0o640), (0o077, 0o600)])
def test_files_in_a_folder_have_the_permissions_of_the_umask_whatever_wrote_them(
    tmp_path: Path, umask: int, mode: int
) -> None:
    before = os.umask(umask)
    try:
        with whole_folder(tmp_path / "adapter") as folder:
            save_file({"a": torch.zeros(2)}, folder / "adapter_model.safetensors")  # 0600, whatever the umask
            (folder / "deep").mkdir()
            (folder / "deep" / "config.json").write_text("{}")
        best = replace_folder(tmp_path / "best", {"w": tmp_path / "adapter" / "adapter_model.safetensors"})
    finally:
        os.umask(before)
    files = [*(tmp_path / "adapter").rglob("*"), best / "w"]
    assert {file.name: file.stat().st_mode & 0o777 for file in files if file.is_file()} == {
        "adapter_model.safetensors": mode,
        "config.json": mode,
        "w": mode,
    }


def test_replace_folder_is_whole_and_leaves_an_equal_one_alone(tmp_path):
    source = tmp_path / "weights.bin"
    source.write_bytes(b"one")
    folder = tmp_path / "best"
    replace_folder(folder, {"weights.bin": source, "config.yaml": "a: 1\n"})
    before = folder.stat().st_ino
    replace_folder(folder, {"weights.bin": source, "config.yaml": "a: 1\n"})
    assert folder.stat().st_ino == before
    source.write_bytes(b"two")
    replace_folder(folder, {"weights.bin": source})
    assert sorted(item.name for item in folder.iterdir()) == ["weights.bin"]
    assert (folder / "weights.bin").read_bytes() == b"two"
    assert sorted(item.name for item in tmp_path.iterdir()) == ["best", "weights.bin"]


def test_replace_folder_that_fails_keeps_the_old_folder(tmp_path):
    folder = tmp_path / "best"
    replace_folder(folder, {"a": "1"})
    with pytest.raises(FileNotFoundError):
        replace_folder(folder, {"a": "2", "b": tmp_path / "missing"})
    assert (folder / "a").read_text() == "1"
    assert os.listdir(tmp_path) == ["best"]


def test_what_stands_beside_the_contents_stays_until_they_change(tmp_path: Path) -> None:
    folder = replace_folder(tmp_path / "best", {"a": "1"}, beside=("merged",))
    (folder / "merged").mkdir()
    replace_folder(folder, {"a": "1"}, beside=("merged",))
    assert (folder / "merged").is_dir()
    replace_folder(folder, {"a": "2"}, beside=("merged",))
    assert not (folder / "merged").exists(), "it was made of another adapter"


def test_writing_fails_and_what_stood_before_stands(tmp_path: Path) -> None:
    target = tmp_path / "folder"
    with whole_folder(target) as temporary:
        (temporary / "a").write_text("old")

    def fail() -> None:
        with whole_folder(target) as temporary:
            (temporary / "a").write_text("new")
            raise OSError("no space left on device")

    with pytest.raises(OSError, match="no space left"):
        fail()
    assert (target / "a").read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["folder"]


@pytest.mark.parametrize("standing", [("folder",), ("folder.previous",), ("folder", "folder.previous")])
def test_one_of_old_and_new_stands_at_every_moment(tmp_path: Path, standing: tuple[str, ...]) -> None:
    """Also beside the leftovers of an earlier crash."""
    target, previous = tmp_path / "folder", tmp_path / "folder.previous"
    for path in (tmp_path / name for name in standing):
        path.mkdir()
        (path / "a").write_text(path.name)

    seen: list[set[str]] = []

    def look(_frame: object, event: str, called: object) -> None:
        if event.startswith("c_") and getattr(called, "__name__", "") in ("rename", "unlink", "rmdir"):
            seen.append({p.name for p in (target, previous) if os.path.isfile(p / "a")})

    sys.setprofile(look)
    try:
        with whole_folder(target) as temporary:
            (temporary / "a").write_text("new")
    finally:
        sys.setprofile(None)
    assert len(seen) >= 4
    assert all(seen)
    assert (target / "a").read_text() == "new"
    assert [p.name for p in tmp_path.iterdir()] == ["folder"]
