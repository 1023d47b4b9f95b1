"""Makes a certificate: every way that the machine can try, on fresh random inputs."""

from __future__ import annotations

import hashlib
import secrets
import time
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from functools import cache
from pathlib import Path

import torch

from lora_runner.certificate.certificate import Certificate, Check, choose
from lora_runner.certificate.checks.check_processes import check_in_processes
from lora_runner.certificate.checks.check_ways import check_way
from lora_runner.certificate.device_facts import DeviceFacts
from lora_runner.certificate.model_sizes import ModelSizes
from lora_runner.certificate.ways.registry import ways_for

CHECKED = ("certificate", "fused", "kernels", "layers", "layout", "optim")
"""Folders of `lora_runner` whose code a certificate is about."""


def certify(
    device: torch.device,
    sizes: ModelSizes,
    dtype: torch.dtype,
    *,
    seed: int | None = None,
    alive: Callable[[], None] = lambda: None,
) -> Certificate:
    """Check all ways to compute on a device for a model's layer sizes and its compute dtype.

    On CUDA in processes of its own: a kernel that fails cannot be undone in the process that launched it, and
    cuBLAS reads its settings once. `seed` repeats an earlier certificate's inputs; by default it is drawn.
    `alive` is called every few seconds.
    """
    seed = secrets.randbits(48) if seed is None else seed
    facts, started = DeviceFacts.of(device), time.monotonic()
    ways = ways_for(facts, dtype)
    checks: Iterable[Check]
    if device.type == "cuda":
        checks = check_in_processes(ways, device, dtype, sizes, seed, alive)
    else:
        checks = (check for way in ways for check in check_way(way, device, dtype, sizes, seed, alive))
    found = tuple(checks)
    return Certificate(
        device=facts,
        sizes=sizes,
        dtype=dtype_name(dtype),
        code=code_digest(),
        made_at=datetime.now(UTC).isoformat(timespec="seconds"),
        seconds=round(time.monotonic() - started, 1),
        seed=seed,
        checks=found,
        choices=choose(found),
    )


def dtype_name(dtype: torch.dtype) -> str:
    """As a certificate names a dtype, such as bfloat16."""
    return str(dtype).removeprefix("torch.")


@cache
def code_digest() -> str:
    """Digest of the code that a certificate is about: one made by other kernels says nothing about these."""
    package = Path(__file__).parent.parent
    digest = hashlib.sha256()
    for folder in CHECKED:
        for file in sorted((package / folder).rglob("*.py")):
            digest.update(file.relative_to(package).as_posix().encode() + b"\0" + file.read_bytes())
    return digest.hexdigest()[:16]
