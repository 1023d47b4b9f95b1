"""Certifies a device for a model, prints what was found, and says so by an exit code."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import torch

from lora_runner.base.load_model import BaseSpec, check_weights, meta_model
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
    say: Callable[[str], None] = print,
) -> int:
    """Certify a device for a model's layer sizes, print what was found, and keep it in the cache.

    Without a model the sizes are an 8B Llama's on CUDA, and small ones on a CPU. Returns 0 if every kind has
    an invariant way, else 1. Raises CertificateError for a device that is not there, ModelError for a model
    that cannot be read, and OSError when `output` cannot be written.
    """
    chosen = device_of(device)
    sizes = sizes_of(model) if model is not None else LLAMA_8B if chosen.type == "cuda" else SMALL_LLAMA
    found = certify(chosen, sizes, seed=seed, alive=_show_life)
    _show_life(end=True)
    keep_certificate(found)  # first: whoever waits for the table may end this process
    for line in table(found):
        say(line)
    if output is not None:
        say(f"wrote {found.write(output)}")
    return 0 if found.is_good else 1


def device_of(name: str | None) -> torch.device:
    """A device of this machine by name, by default the first GPU or else the CPU."""
    if name is None:
        return torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu")
    with suppress(RuntimeError):
        found = torch.device(name)
        if found.type == "cpu":
            return torch.device("cpu")
        if found.type == "cuda" and (found.index or 0) < torch.cuda.device_count():
            return torch.device("cuda", found.index or 0)
    count = torch.cuda.device_count()
    there = ", ".join(["cpu", *(f"cuda:{index}" for index in range(count))])
    raise CertificateError(f"the device must be one of this machine ({there}), got {name!r}")


def sizes_of(model: BaseSpec) -> ModelSizes:
    """The sizes of a model's layers, from its configuration alone."""
    check_weights(model)
    return ModelSizes.of_model(meta_model(model), model.model)


def _show_life(*, end: bool = False) -> None:
    """A dot for each step, where a person waits."""
    if sys.stderr.isatty():
        print("\n" if end else ".", end="", file=sys.stderr, flush=True)
