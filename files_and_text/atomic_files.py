"""Files and folders that are written whole or not at all, whatever crashes."""

from __future__ import annotations

import filecmp
import json
import os
import secrets
import shutil
import stat
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from files_and_text.plain_values import plain


def atomic_write(path: Path, content: str | bytes) -> Path:
    """Write `content` under a temporary name beside `path`, sync it, rename it into place; return `path`.

    Text is UTF-8. Missing parent folders are made. An interrupted write leaves the old file as it was.
    """
    with _replacing(path) as file:
        file.write(content.encode("utf-8") if isinstance(content, str) else content)
    return path


def atomic_write_json(path: Path, data: Mapping[str, Any]) -> Path:
    """`atomic_write` of indented JSON; NaN and infinities become null, numpy numbers plain ones."""
    return atomic_write(path, json.dumps(plain(data), indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def atomic_copy(source: Path, path: Path) -> Path:
    """`atomic_write` of a file's bytes, in pieces: an adapter with embeddings can have gigabytes."""
    with source.open("rb") as reading, _replacing(path) as file:
        shutil.copyfileobj(reading, file, 1 << 22)
    return path


@contextmanager
def whole_folder(target: Path) -> Iterator[Path]:
    """Fill a temporary folder that becomes `target` when the block ends without an error.

    The old `target` is kept as `<name>.previous` until the new one is in place, so a crash at any point
    leaves one of the two whole. Temporary folders of writers that were killed are removed. Files get the
    permissions of the user's umask, whatever wrote them.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    previous = previous_folder(target)
    remove_temporaries(target)
    fresh = _temporary(target)
    fresh.mkdir()
    try:
        yield fresh
        for file in fresh.rglob("*"):
            if file.is_file():
                _permit_by_umask(file)
                with file.open("rb") as opened:
                    os.fsync(opened.fileno())
        sync_folder(fresh)
        if target.exists():
            # A `previous` beside a `target` was left by a crash; either may be the one that can be read.
            target.rename(target.with_name(f".{target.name}.old.tmp") if previous.exists() else previous)
        fresh.rename(target)
        sync_folder(target.parent)
        shutil.rmtree(previous, ignore_errors=True)
    finally:
        remove_temporaries(target)


def _permit_by_umask(file: Path) -> None:
    """Give a file what the umask left to its folder: safetensors makes files that only the owner may read."""
    if not file.is_symlink():
        file.chmod(stat.S_IMODE(file.stat().st_mode) | (file.parent.stat().st_mode & 0o666))


def replace_folder(folder: Path, contents: Mapping[str, Path | str], *, beside: Collection[str] = ()) -> Path:
    """Make `folder` hold exactly `contents` (name -> file to copy, or text), as `whole_folder`; return it.

    A folder that already holds these contents is left alone, with what is named in `beside`.
    """
    if folder_holds(folder, contents, beside=beside):
        return folder
    with whole_folder(folder) as fresh:
        for name, content in contents.items():
            if isinstance(content, Path):
                atomic_copy(content, fresh / name)
            else:
                atomic_write(fresh / name, content)
    return folder


def sync_folder(folder: Path) -> None:
    """Make renames in `folder` durable, where the system can (a folder cannot be opened on Windows)."""
    if os.name != "posix":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def _replacing(path: Path) -> Iterator[BinaryIO]:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = _temporary(path)
    try:
        with temporary.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def _temporary(path: Path) -> Path:
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")


def previous_folder(folder: Path) -> Path:
    """Where `whole_folder` keeps the old folder until the new one is in place."""
    return folder.with_name(f"{folder.name}.previous")


def remove_temporaries(path: Path) -> None:
    """Remove temporary folders of `path` that killed writers left behind."""
    for leftover in path.parent.glob(f".{path.name}.*.tmp"):
        shutil.rmtree(leftover, ignore_errors=True)


def folder_holds(folder: Path, contents: Mapping[str, Path | str], *, beside: Collection[str] = ()) -> bool:
    """Whether `folder` holds exactly `contents`, as for `replace_folder`, apart from what `beside` names."""
    if not folder.is_dir():
        return False
    paths = (item.relative_to(folder) for item in folder.rglob("*") if not item.is_dir())
    if {path.as_posix() for path in paths if path.parts[0] not in beside} != set(contents):
        return False
    for name, content in contents.items():
        if not (folder / name).is_file():
            return False
        if isinstance(content, Path):
            if not filecmp.cmp(content, folder / name, shallow=False):
                return False
        elif (folder / name).read_bytes() != content.encode("utf-8"):
            return False
    return True
