"""Reading a base's weights into the page cache in the background, before a worker loads them."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import psutil
from huggingface_hub import try_to_load_from_cache
from huggingface_hub.errors import HFValidationError

from lora_runner.base.weights_digest import weight_files

PIECE_BYTES = 8 << 20
MAX_SHARE = 0.5
"""Of the free memory; larger weights would push each other out."""


def read_ahead(model: str, revision: str | None = None) -> threading.Thread | None:
    """Start to read the weights of a folder or of a cached hub id; None where there is nothing to gain.

    The thread ends by itself, with the process at the latest, and passes over files that cannot be read:
    whoever loads them says why.
    """
    folder = Path(model)
    if not folder.is_dir():
        try:
            found = try_to_load_from_cache(model, "config.json", revision=revision)
        except HFValidationError:
            return None
        if not isinstance(found, str):
            return None
        folder = Path(found).parent
    files = [file for file in weight_files(folder) if file.is_file()]
    size = sum(file.stat().st_size for file in files)
    if not 0 < size <= MAX_SHARE * psutil.virtual_memory().available:
        return None
    thread = threading.Thread(target=_read, args=(files,), name="read-ahead", daemon=True)
    thread.start()
    return thread


def _read(files: Sequence[Path]) -> None:
    piece = bytearray(PIECE_BYTES)
    for file in files:
        with suppress(OSError), file.open("rb", buffering=0) as opened:
            while opened.readinto(piece):
                pass
