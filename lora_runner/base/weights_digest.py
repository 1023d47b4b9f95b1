"""A digest of a base's weights that detects other weights under the same name within a second."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from lora_runner.errors import ModelError

WHOLE_BYTES = 1 << 20
"""Tensors of up to this size are read whole."""
PIECES, PIECE_BYTES = 8, 4096
"""Pieces read of a larger tensor, evenly from its first byte to its last."""
_LARGEST_HEADER = 100 * 2**20
"""safetensors' own limit."""
_INDEX = "model.safetensors.index.json"
_IRRELEVANT_KEYS = ("_name_or_path", "transformers_version", "architectures", "torch_dtype", "dtype")


def weights_digest(folder: Path) -> str:
    """16 hex digits over the weights in a folder and its config.json.

    Covers each tensor's name, type and shape, the content of small tensors, and PIECES of larger ones. How
    tensors are spread over files makes no difference. A change between the pieces, such as of a few rows of
    an embedding, is not detected. Raises ModelError for files that are missing or damaged.
    """
    tensors = dict[str, bytes]()
    for file in weight_files(folder):
        try:
            tensors |= dict(tensor_samples(file))
        except FileNotFoundError:
            raise ModelError(f"weights {str(file)!r} do not exist, although {_INDEX} names them") from None
        except (OSError, ValueError) as error:
            raise ModelError(f"weights {str(file)!r} are damaged: {error}") from error
    digest = hashlib.sha256(json.dumps(_configuration(folder), sort_keys=True).encode())
    for name in sorted(tensors):
        digest.update(name.encode() + b"\0" + tensors[name])
    return digest.hexdigest()[:16]


def weight_files(folder: Path) -> list[Path]:
    """The files of a folder that transformers reads weights from: one, or those of the index."""
    if (single := folder / "model.safetensors").is_file():
        return [single]
    try:
        index = json.loads((folder / _INDEX).read_text(encoding="utf-8"))
        return [folder / name for name in sorted(set(index["weight_map"].values()))]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return sorted(folder.glob("*.safetensors"))


def tensor_samples(file: Path) -> Iterator[tuple[str, bytes]]:
    """Each tensor's name, and a digest of its type, its shape and the content that is read.

    Raises ValueError for a file that is incomplete or not safetensors.
    """
    with file.open("rb") as opened:
        header, start = _header(opened, file.stat().st_size)
        for name, about in sorted(header.items(), key=lambda item: item[1]["data_offsets"]):
            first, end = about["data_offsets"]
            digest = hashlib.sha256(json.dumps([about["dtype"], about["shape"]]).encode())
            for offset, size in _pieces(end - first):
                digest.update(os.pread(opened.fileno(), size, start + first + offset))
            yield name, digest.digest()


def tensor_types(file: Path) -> dict[str, str]:
    """Each tensor's type, as safetensors names it; raises as `tensor_samples`."""
    with file.open("rb") as opened:
        header, _ = _header(opened, file.stat().st_size)
    return {name: str(about["dtype"]) for name, about in header.items()}


def _header(file: BinaryIO, size: int) -> tuple[dict[str, Any], int]:
    length = int.from_bytes(file.read(8), "little")
    if not 0 < length <= min(_LARGEST_HEADER, size - 8):
        raise ValueError("it has no safetensors header")
    header = json.loads(file.read(length))
    if not isinstance(header, dict):
        raise ValueError("its header is not a mapping")
    header.pop("__metadata__", None)
    try:
        end = max((int(about["data_offsets"][1]) for about in header.values()), default=0)
    except (KeyError, TypeError, IndexError):
        raise ValueError("its header lacks the tensors' offsets") from None
    if 8 + length + end > size:
        raise ValueError("it ends before its last tensor")
    return header, 8 + length


def _pieces(size: int) -> Iterator[tuple[int, int]]:
    """Offsets and lengths of the pieces read of a tensor of `size` bytes."""
    if size <= WHOLE_BYTES:
        yield 0, size
        return
    for number in range(PIECES):
        yield number * (size - PIECE_BYTES) // (PIECES - 1), PIECE_BYTES


def _configuration(folder: Path) -> dict[str, Any]:
    """config.json without the keys that do not change results."""
    try:
        found = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise ModelError(f"{str(folder / 'config.json')!r} is not a valid JSON file: {error}") from error
    return {key: value for key, value in found.items() if key not in _IRRELEVANT_KEYS}
