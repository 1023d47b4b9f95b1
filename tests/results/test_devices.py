"""What a sweep was computed on, as people say it."""

from __future__ import annotations

from typing import Any

import pytest

from results.devices import devices_of


def worker(host: str, **devices: int) -> dict[str, Any]:
    return {"host": host, "devices": {name.replace("_", " "): count for name, count in devices.items()}}


@pytest.mark.parametrize(
    ("workers", "said"),
    [
        ([], ()),
        ([worker("a", NVIDIA_H200=1)], ("NVIDIA H200",)),
        ([worker("a", NVIDIA_H200=1), worker("a", NVIDIA_H200=1)], ("2 x NVIDIA H200",)),
        ([worker("a", NVIDIA_H200=4), worker("b", Tesla_T4=1)], ("4 x NVIDIA H200", "Tesla T4")),
        ([worker("a", CPU_core=1)], ("1 CPU core",)),
        # The workers of one machine share its cores.
        ([worker("a", CPU_core=2), worker("a", CPU_core=2), worker("b", CPU_core=8)], ("10 CPU cores",)),
    ],
)
def test_devices_of_all_workers(workers: list[dict[str, Any]], said: tuple[str, ...]) -> None:
    assert devices_of({"devices": dict(enumerate(workers))}) == said


def test_a_study_of_an_earlier_version_names_what_it_knows() -> None:
    paths = [{"device": "CPU with AVX512"}, {"device": "CPU with AVX2"}, {"device": "NVIDIA H200"}]
    assert devices_of({"compute_paths": paths}) == ("CPU", "NVIDIA H200")
