"""Checks ways in child processes: one for each setting of cuBLAS, and a new one after each that died.

A child writes a line of JSON when it starts a way and one for each check. When it ends early, the way that it
had started has failed, and the rest is checked in another child.
"""

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict
from itertools import groupby
from typing import IO, Any

import torch

from lora_runner.certificate.certificate import PROCESS, Check
from lora_runner.certificate.checks.check_ways import check_way
from lora_runner.certificate.cublas_settings import VARIABLES
from lora_runner.certificate.device_facts import DeviceFacts
from lora_runner.certificate.model_sizes import ModelSizes
from lora_runner.certificate.ways.registry import Way, ways_for

SILENCE_SECONDS = 240.0
"""A child that neither ends a check nor is heard of for this long is ended: a kernel hangs."""
ALIVE_SECONDS = 2.0
COMMAND = ("-m", "lora_runner.certificate.checks.check_processes")
"""Of a child, after the interpreter."""


def check_in_processes(
    ways: Sequence[Way],
    device: torch.device,
    dtype: torch.dtype,
    sizes: ModelSizes,
    seed: int,
    alive: Callable[[], None],
) -> Iterator[Check]:
    """The checks of `check_way` for all ways, in their order but by environment."""
    by_environment = sorted(ways, key=lambda way: way.environment)
    for _, group in groupby(by_environment, key=lambda way: way.environment):
        left = list(group)
        while left:
            done = yield from _one_child(left, device, dtype, sizes, seed, alive)
            left = left[max(1, done) :]


def _one_child(
    ways: Sequence[Way],
    device: torch.device,
    dtype: torch.dtype,
    sizes: ModelSizes,
    seed: int,
    alive: Callable[[], None],
) -> Generator[Check, None, int]:
    """Checks of the first of `ways`, as many as the child got through; returns that number."""
    request = {
        "device": str(device),
        "dtype": str(dtype).removeprefix("torch."),
        "sizes": asdict(sizes),
        "seed": seed,
        "ways": [[way.kind, way.name] for way in ways],
    }
    environment = {name: value for name, value in os.environ.items() if name not in VARIABLES}
    environment |= dict(ways[0].environment) | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    started = 0
    with (
        tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as log,
        subprocess.Popen(
            [sys.executable, *COMMAND],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            env=environment,
            text=True,
        ) as child,
    ):
        assert child.stdin is not None
        assert child.stdout is not None
        lines = _Lines(child.stdout)
        try:
            with suppress(BrokenPipeError), child.stdin as stdin:
                stdin.write(json.dumps(request))
            for line in lines.read(alive):
                message = json.loads(line)
                if "check" in message:
                    yield Check(**message["check"])
                elif "way" in message:
                    started = message["way"] + 1
                else:
                    return len(ways)
            if not lines.is_silent:
                child.wait()
        finally:
            child.kill()
            child.wait()
            lines.close()
        log.seek(0)
        last = [line.strip() for line in log if line.strip()][-1:]
    failed = ways[max(0, started - 1)]
    how = "was not heard of any more" if lines.is_silent else f"ended with code {child.returncode}"
    text = ": ".join([f"the process that computed it {how}", *last])
    yield Check(kind=failed.kind, way=failed.name, case=PROCESS, comparisons=0, difference=text[:500])
    return max(1, started)


class _Lines:
    """Lines of a stream as they come, read by a thread, so that the caller can do something meanwhile."""

    def __init__(self, stream: IO[str]) -> None:
        self.is_silent = False
        """Whether nothing came for `SILENCE_SECONDS`."""
        self._lines: queue.Queue[str | None] = queue.Queue()
        self._thread = threading.Thread(target=self._fill, args=(stream,), daemon=True)
        self._thread.start()

    def _fill(self, stream: IO[str]) -> None:
        for line in stream:
            self._lines.put(line)
        self._lines.put(None)

    def read(self, alive: Callable[[], None]) -> Iterator[str]:
        """Lines until the stream ends or is silent; `alive` is called every few seconds."""
        heard_at = time.monotonic()
        while not self.is_silent:
            alive()
            try:
                line = self._lines.get(timeout=ALIVE_SECONDS)
            except queue.Empty:
                self.is_silent = time.monotonic() - heard_at > SILENCE_SECONDS
                continue
            if line is None:
                return
            heard_at = time.monotonic()
            yield line

    def close(self) -> None:
        """Wait for the thread, after the other end of the stream has been closed."""
        self._thread.join()


def _child(source: IO[str], out: IO[str]) -> None:
    """Check the ways of the request on `source`; see the top of this file."""

    def say(**message: Any) -> None:
        print(json.dumps(message), file=out, flush=True)

    request = json.load(source)
    device = torch.device(request["device"])
    sizes = ModelSizes.from_dict(request["sizes"])
    dtype = getattr(torch, request["dtype"])
    known = {(way.kind, way.name): way for way in ways_for(DeviceFacts.of(device), dtype)}
    for number, (kind, name) in enumerate(request["ways"]):
        say(way=number)
        for check in check_way(known[kind, name], device, dtype, sizes, request["seed"], lambda: None):
            say(check=asdict(check))
        if device.type == "cuda":
            torch.cuda.synchronize(device)  # raises where a kernel has failed
            torch.cuda.empty_cache()
    say(done=True)


if __name__ == "__main__":
    # What libraries print must not come between the messages.
    messages = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    _child(sys.stdin, messages)
