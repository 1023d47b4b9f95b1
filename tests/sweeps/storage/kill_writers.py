"""Kill writers during their transactions, and check each time what the storage holds.

Arguments: URL KILLS SEED SECONDS, the last the longest life of a writer. test_storage_kills.py runs it
in a process of its own, because it forks.
"""

from __future__ import annotations

import os
import random
import select
import signal
import sys
import time

import optuna

from sweeps.storage.cached_storage import CachedStorage
from sweeps.storage.open_storage import open_storage
from sweeps.storage.optuna_private import storage_of, trial_id_of
from sweeps.study.study import open_study, peek, set_user_attrs


def text_of(number: int) -> str:
    """Some transactions are large, so that kills fall into their writes."""
    return "x" * (number * 7919 % 100_000)


def write_until_killed(url: str, pipe: int) -> None:
    storage = open_storage(url)
    with storage.transaction():
        study, _ = open_study(CachedStorage(storage), "s", {})
        start = len(study.get_trials(deepcopy=False))
    os.write(pipe, b"ready\n")
    for number in range(start, start + 100_000):
        with storage.transaction():
            trial = study.ask()
            set_user_attrs(study, trial, first=number, text=text_of(number), last=number)
            storage_of(study).add_intermediate_values(
                [(trial_id_of(trial), s, float(number)) for s in range(5)]
            )
            study.set_user_attr("told", number)
            study.tell(trial, float(number))
        os.write(pipe, f"{number}\n".encode())


def killed_writer(url: str, seconds: float) -> list[str]:
    """Numbers that a writer reported before it was killed, `seconds` after it was ready."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            write_until_killed(url, writing)
        finally:
            os._exit(1)
    os.close(writing)
    assert select.select([reading], [], [], 60)[0], "the writer does not start"
    time.sleep(seconds)
    os.kill(pid, signal.SIGKILL)
    _, status = os.waitpid(pid, 0)
    said = b""
    while chunk := os.read(reading, 65536):
        said += chunk
    os.close(reading)
    assert os.WIFSIGNALED(status), said
    ready, *numbers = said.decode().split()
    assert ready == "ready"
    return numbers


def check(url: str, said: int) -> int:
    """The number of the last trial; fails where a transaction is missing, or is not whole."""
    study = peek(url, "s")
    assert study is not None
    trials = study.get_trials(deepcopy=False)
    # All that it reported are there; one more may be, whose report was cut off by the kill.
    assert len(trials) in (said + 1, said + 2), (len(trials), said)
    assert study.user_attrs.get("told", -1) == len(trials) - 1
    for number, trial in enumerate(trials):
        assert trial.number == trial.value == number
        assert trial.user_attrs == {"first": number, "text": text_of(number), "last": number}
        assert trial.intermediate_values == dict.fromkeys(range(5), float(number))
    return len(trials) - 1


def main(url: str, kills: int, seed: int, seconds: float) -> None:
    optuna.logging.disable_default_handler()
    random_, last = random.Random(seed), -1
    for _ in range(kills):
        numbers = killed_writer(url, random_.uniform(0.0, seconds))
        last = check(url, int(numbers[-1]) if numbers else last)
    print(f"kills: {kills}\ntransactions: {last + 1}")


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4]))
