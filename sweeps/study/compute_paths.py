"""How the workers of a study compute: kept in the study, certificates beside the run, differences noted."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import optuna

from files_and_text.atomic_files import atomic_write_json
from files_and_text.plain_values import plain
from lora_runner.protocol import ComputeRecord
from results.devices import DEVICES

COMPUTE_PATHS = "compute_paths"
"""User attribute of a study: how its workers compute, one entry for each device and path, with the reasons
and the certificate."""
MIXED = (
    "numbers of one trial are exact within a worker, but a comparison of trials that were computed by "
    "different paths mixes their rounding"
)


def record_compute_path(
    study: optuna.Study, folder: Path, worker: int, compute: ComputeRecord, note: Callable[[str], None]
) -> None:
    """Record a worker's path and certificate; notes say what was not taken, and that paths differ.

    The study keeps each path once, with its device and its certificate; a trial's report names its own path.
    """
    known: list[dict[str, object]] = list(study.user_attrs.get(COMPUTE_PATHS) or [])
    for text in compute.notes:
        note(f"worker {worker}: {text}")
    here = {"device": compute.device, "path": compute.path}
    others = [path for path in known if {name: path[name] for name in here} != here]
    if others:
        other = f"{others[0]['path']} on {others[0]['device']}"
        note(f"worker {worker}: computes by {compute.path} on {compute.device}, others by {other}: {MIXED}")
    workers = study.user_attrs.get(DEVICES) or {}
    used = {"devices": dict(compute.devices), "host": compute.host}
    if workers.get(str(worker)) != used:
        study.set_user_attr(DEVICES, {**workers, str(worker): used})
    record = here | {
        "details": list(compute.details),
        "notes": list(compute.notes),
        "certificate": plain(compute.certificate),
    }
    if record not in known:
        study.set_user_attr(COMPUTE_PATHS, [*others, record])
    if compute.certificate is not None and compute.certificate_name is not None:
        with suppress(OSError):  # the study has it
            atomic_write_json(folder / compute.certificate_name, compute.certificate)
