"""Certifies a device for a model, prints what was found, and says so by an exit code."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import torch

from lora_runner.base.load_model import BaseSpec, check_weights, meta_model, resolve_dtype
from lora_runner.certificate.cache import keep_certificate
from lora_runner.certificate.certify import certify
from lora_runner.certificate.model_sizes import LLAMA_8B, SMALL_LLAMA, ModelSizes
from lora_runner.certificate.table import table
from lora_runner.errors import CertificateError


def certify_and_print(
    model: BaseSpec | None,
    *,
    device: str | None = None,
    seed: int | None = None,
    output: Path | None = None,
    beside: Path | None = None,
    say: Callable[[str], None] = print,
) -> int:
    """Certify a device for a model's layer sizes, print what was found, and keep it in the cache.

    Without a model the sizes are an 8B Llama's on CUDA, and small ones on a CPU. `beside` is a folder that
    gets a file named by the device. Returns 0 if every kind has an invariant way, else 1. Raises
    CertificateError for a device that is not there, ModelError for a model that cannot be read, and OSError
    when `output` cannot be written, mostly before anything is computed.
    """
    chosen = device_of(device)
    if output is not None:
        _check_writable(output)
    dtype = resolve_dtype("auto" if model is None else model.compute_dtype, chosen)
    sizes = sizes_of(model) if model is not None else LLAMA_8B if chosen.type == "cuda" else SMALL_LLAMA
    found = certify(chosen, sizes, dtype, seed=seed, alive=_show_life)
    _show_life(end=True)
    keep_certificate(found)  # first: whoever waits for the table may end this process
    for line in table(found):
        say(line)
    files = [output, None if beside is None else beside / found.file_name]
    for file in filter(None, files):
        say(f"wrote {found.write(file)}")
    return 0 if found.is_good else 1


def device_of(name: str | None) -> torch.device:
    """A device of this machine by name, by default the first GPU or else the CPU."""
    if name is None:
        return torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu")
    with suppress(RuntimeError):
        found = torch.device(name)
        if found.type == "cpu" and not found.index:
            return torch.device("cpu")
        if found.type == "cuda" and (found.index or 0) < torch.cuda.device_count():
            return torch.device("cuda", found.index or 0)
    count = torch.cuda.device_count()
    there = ", ".join(["cpu", *(f"cuda:{index}" for index in range(count))])
    raise CertificateError(f"the device must be one of this machine ({there}), got {name!r}")


def _check_writable(output: Path) -> None:
    """Raise OSError now for a file that could not be written after a minute of checks."""
    if output.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(output))
    output.parent.mkdir(parents=True, exist_ok=True)
    if not os.access(output.parent, os.W_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(output))


def sizes_of(model: BaseSpec) -> ModelSizes:
    """The sizes of a model's layers, from its configuration alone."""
    check_weights(model)
    return ModelSizes.of_model(meta_model(model), model.model)


def _show_life(*, end: bool = False) -> None:
    """A dot for each step, where a person waits."""
    if sys.stderr.isatty():
        print("\n" if end else ".", end="", file=sys.stderr, flush=True)
