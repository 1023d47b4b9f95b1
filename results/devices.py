"""What a sweep was computed on, for people: `NVIDIA H200`, `2 x NVIDIA H200`, `2 CPU cores`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from files_and_text.numbers import plural

DEVICES = "devices"
"""User attribute of a study: worker -> host, and name -> number of its devices."""
CORE = "CPU core"


def uses_gpus(attributes: Mapping[str, Any]) -> bool:
    """Whether every worker of a study that is known computes on GPUs; False while none is known."""
    names = [name for worker in (attributes.get(DEVICES) or {}).values() for name in worker["devices"]]
    return bool(names) and CORE not in names


def devices_of(attributes: Mapping[str, Any]) -> tuple[str, ...]:
    """The devices of all workers of a study; `attributes` are its user attributes.

    Each worker has GPUs of its own, while the workers of one machine share its cores.
    """
    gpus, cores = Counter[str](), dict[str, int]()
    for worker in (attributes.get(DEVICES) or {}).values():
        for name, count in worker["devices"].items():
            if name == CORE:
                cores[worker["host"]] = max(cores.get(worker["host"], 0), count)
            else:
                gpus[name] += count
    found = [name if count == 1 else f"{count} x {name}" for name, count in sorted(gpus.items())]
    if cores:
        found.append(plural(sum(cores.values()), CORE))
    # Studies of earlier versions name the instruction set of a CPU only.
    paths = attributes.get("compute_paths") or ()
    named = ["CPU" if str(path["device"]).startswith("CPU ") else str(path["device"]) for path in paths]
    return tuple(found or dict.fromkeys(named))
