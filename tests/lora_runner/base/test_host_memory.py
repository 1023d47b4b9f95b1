"""Memory of freed tensors stays in the process."""

from __future__ import annotations

import subprocess
import sys

import pytest

SCRIPT = """
import resource, sys, torch
from lora_runner.base.host_memory import keep_freed_memory
if sys.argv[1] == "keep":
    assert keep_freed_memory()
for _ in range(10):
    torch.ones(1 << 24)  # the first few may not fit into freed memory
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(8):
    torch.ones(1 << 24)  # 64 MiB, freed at once
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(how: str) -> int:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, how], capture_output=True, text=True, timeout=120, check=True
    )
    return int(done.stdout)


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="sets an option of glibc")
def test_a_freed_tensor_is_not_faulted_in_again() -> None:
    # 16384 pages of 4 KiB each time, or none.
    assert faults("keep") < 2 * 16384
    assert faults("leave") > 6 * 16384
