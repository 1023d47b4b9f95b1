"""Certificates kept in the user's cache: one file for a device, its versions, layer sizes and dtype."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

import torch

from files_and_text.user_cache import user_cache
from lora_runner.certificate.certificate import Certificate
from lora_runner.certificate.certify import certify, code_digest, dtype_name
from lora_runner.certificate.device_facts import DeviceFacts
from lora_runner.certificate.model_sizes import ModelSizes
from lora_runner.errors import CertificateError

Make = Callable[..., Certificate]
"""`certify`, or a stand-in."""
FOLDER = "certificates"
"""In the user's cache."""


def cached_path(device: DeviceFacts, sizes: ModelSizes, dtype: str) -> Path:
    """The file for a device, versions of its libraries and of this program's code, layer sizes and dtype."""
    sizes_alone = asdict(sizes) | {"name": ""}
    about = {"device": asdict(device), "sizes": sizes_alone, "dtype": dtype, "code": code_digest()}
    digest = hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:16]
    return user_cache() / FOLDER / f"{device.file_stem}-{digest}.json"


def cached_certificate(device: DeviceFacts, sizes: ModelSizes, dtype: torch.dtype) -> Certificate | None:
    """The certificate in the cache; None where there is none, or it cannot be read."""
    with suppress(OSError, CertificateError):
        found = Certificate.read(cached_path(device, sizes, dtype_name(dtype)))
        if (found.device, found.dtype, found.code) == (device, dtype_name(dtype), code_digest()):
            return found
    return None


def certificate_for(
    device: torch.device,
    sizes: ModelSizes,
    dtype: torch.dtype,
    *,
    alive: Callable[[], None] = lambda: None,
    make: Make = certify,
) -> Certificate:
    """The cached certificate of a device, or a new one, which is put into the cache.

    One whose checks lacked memory, or whose processes died, is not kept. Two processes may make the same one
    at the same time: the later file replaces the earlier. A cache that cannot be written is not used.
    """
    facts = DeviceFacts.of(device)
    if (found := cached_certificate(facts, sizes, dtype)) is not None:
        return found
    made = make(device, sizes, dtype, alive=alive)
    keep_certificate(made)
    return made


def keep_certificate(made: Certificate) -> None:
    """Put a certificate into the cache, unless a check of it may pass another time."""
    if not any(check.may_pass_again for check in made.checks):
        with suppress(OSError):
            made.write(cached_path(made.device, made.sizes, made.dtype))
