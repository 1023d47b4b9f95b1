"""Writers killed in the middle of their transactions: what stands is whole, and a prefix of what was done."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

WRITER = """
import os, sys
import optuna
from sweeps.storage import open_storage, transaction
from sweeps.study import describe, open_study
from sweeps.write_through import WriteThrough

optuna.logging.disable_default_handler()
storage = open_storage(sys.argv[1])
with transaction(storage):
    study, _ = open_study(WriteThrough(storage), "s", {})
    start = len(study.get_trials(deepcopy=False))
print("ready", flush=True)
for number in range(start, 10**6):
    with transaction(storage):
        trial = study.ask()
        describe(study, trial, first=number, text="x" * (number * 7919 % 20000), last=number)
        study._storage.add_intermediate_values([(trial._trial_id, s, float(number)) for s in range(5)])
        study.set_user_attr("told", number)
        study.tell(trial, float(number))
    os.write(1, f"{number}\\n".encode())
"""


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["sqlite", "journal"])
def test_a_killed_writer_leaves_whole_transactions(
    kind: str, new_url: Callable[..., str], plainly: Callable[..., Any], tmp_path: Path
) -> None:
    url, said, random_ = new_url(), -1, random.Random(0)
    kills = int(os.environ.get("KILLS", "6"))
    for _ in range(kills):
        with open(tmp_path / "said", "w+b") as output:
            writer = subprocess.Popen([sys.executable, "-c", WRITER, url], stdout=output)
            try:
                until = time.monotonic() + 60
                while not os.path.getsize(output.name) and writer.poll() is None and time.monotonic() < until:
                    time.sleep(0.01)
                time.sleep(random_.uniform(0.02, 0.3))
                assert writer.poll() is None, "the writer ended by itself"
            finally:
                writer.send_signal(signal.SIGKILL)
                writer.wait(timeout=60)
            output.seek(0)
            ready, *numbers = output.read().decode().split()
        assert ready == "ready"
        said = int(numbers[-1]) if numbers else said
        trials = plainly(url, "s") if kind == "sqlite" else whole(url)
        # What it said was committed is there; the one after it may be, its word was not heard.
        assert len(trials) in (said + 1, said + 2)
        said = len(trials) - 1
        for number, trial in enumerate(trials):
            assert trial.value == number
            assert trial.user_attrs["first"] == trial.user_attrs["last"] == number
            assert len(trial.user_attrs["text"]) == number * 7919 % 20000
            assert trial.intermediate_values == dict.fromkeys(range(5), float(number))
    assert said >= kills


def whole(url: str) -> list[Any]:
    """As our own readers see it while the end may be torn."""
    from sweeps.study import peek

    study = peek(url, "s")
    assert study is not None
    trials = study.get_trials()
    assert study.user_attrs.get("told", -1) == len(trials) - 1
    return trials
