"""Failed starts: which errors are transient, and when a worker or the sweep is given up."""

from __future__ import annotations

import errno
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lora_runner.errors import DataError, ModelError
from sweeps.artifacts.worker_files import StoreUnreachable
from sweeps.errors import StartFailed, StartRefused
from sweeps.keeper.actor import KeeperActor
from sweeps.keeper.start_failures import StartDecision, StartFailures, StartFault
from sweeps.study.lease import DriverProcess

RETRY, GIVE_UP, END_SWEEP = StartDecision.RETRY, StartDecision.GIVE_UP, StartDecision.END_SWEEP


def fault(error: BaseException) -> StartFault:
    try:
        raise error
    except type(error) as raised:
        return StartFault.from_error(raised)


MISTAKE = fault(KeyError("head_dim"))
OTHER = fault(ValueError("another"))
AWAY = fault(ConnectionResetError("connection reset by peer"))


# --- one error ------------------------------------------------------------------------------------


def caused(outer: Exception, inner: Exception) -> Exception:
    outer.__cause__ = inner
    return outer


class OutOfMemoryError(RuntimeError):
    """As torch names it."""


class HTTPError(Exception):
    """As a library of this package would raise."""

    def __init__(self, status: int | None) -> None:
        super().__init__(f"status {status}")
        if status is not None:
            self.response = type("Response", (), {"status_code": status})()


HTTPError.__module__ = "httpx"


class OfflineModeIsEnabled(ConnectionError):
    """As huggingface_hub names it."""


@pytest.mark.parametrize(
    ("error", "may_pass"),
    [
        (OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), True),
        (RuntimeError("CUDA error: an illegal memory access was encountered"), True),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"), True),
        (MemoryError(), True),
        (OSError(errno.ENOSPC, "No space left on device"), True),
        (OSError(errno.EHOSTUNREACH, "No route to host"), True),
        (TimeoutError("timed out"), True),
        (StoreUnreachable("the bucket is gone"), True),
        (caused(ModelError("cannot be loaded"), ConnectionError("refused")), True),
        (caused(ModelError("cannot be loaded"), HTTPError(503)), True),
        (HTTPError(None), True),
        (HTTPError(404), False),
        (caused(ModelError("cannot be loaded"), OfflineModeIsEnabled("offline")), False),
        (OSError(errno.ENOENT, "No such file or directory"), False),
        (ModelError("model folder 'x' has no config.json"), False),
        (IndexError("index out of range in self"), False),
        (ImportError("no module named flash_attn"), False),
    ],
)
def test_what_may_pass_is_told_from_what_comes_again(error: Exception, may_pass: bool) -> None:
    assert fault(error).is_transient is may_pass


def test_an_error_is_said_with_its_place_and_bad_input_in_its_own_words() -> None:
    assert MISTAKE.message == "KeyError: 'head_dim'"
    assert re.fullmatch(re.escape(__file__) + r":\d+", MISTAKE.location)
    assert "raise error" in MISTAKE.traceback
    assert not MISTAKE.is_bad_input
    given = fault(DataError("no prompt", path="train.jsonl", line=7))
    assert (given.message, given.is_bad_input) == ("train.jsonl:7: no prompt", True)
    assert len(fault(ValueError("x" * 10_000)).message) < 700


@pytest.mark.parametrize(
    ("first", "second", "same"),
    [
        ("<Module at 0x7f12ab>", "<Module at 0x55d0c0>", True),
        ("process 4711 failed", "process 12 failed", True),
        ("(pid=4711) failed", "(pid=12) failed", True),
        ("no file /tmp/tmpab12/x.bin", "no file /tmp/tmpzz9/y.bin", True),
        ("at 2026-11-28 12:00:01,5: no", "at 2026-11-28 12:00:33,9: no", True),
        ("gave up after 31.5 s", "gave up after 30.9 s", True),
        ("blob 0123456789abcdef is bad", "blob fedcba9876543210 is bad", True),
        ("size mismatch: 128 and 256", "size mismatch: 64 and 256", False),
        ("no file /data/a.bin", "no file /data/b.bin", False),
    ],
)
def test_what_varies_from_try_to_try_is_no_difference(first: str, second: str, same: bool) -> None:
    assert (fault(ValueError(first)).key == fault(ValueError(second)).key) is same


# --- one worker, several workers ------------------------------------------------------------------


def test_one_worker_tries_twice_and_ends_the_sweep() -> None:
    starts = StartFailures()
    assert [starts.record_failure(0, MISTAKE, 1) for _ in range(2)] == [RETRY, END_SWEEP]
    assert starts.fatal == MISTAKE


def test_with_other_words_each_time_it_tries_on() -> None:
    starts = StartFailures()
    assert [starts.record_failure(0, each, 1) for each in (MISTAKE, OTHER, MISTAKE)] == [
        RETRY,
        RETRY,
        END_SWEEP,
    ]


def test_what_may_pass_never_ends_the_sweep_here() -> None:
    starts = StartFailures()
    assert {starts.record_failure(worker, AWAY, 2) for worker in (0, 1) for _ in range(9)} == {RETRY}


def test_two_workers_that_say_the_same_need_no_second_try() -> None:
    starts = StartFailures()
    assert [starts.record_failure(worker, MISTAKE, 2) for worker in (0, 1, 1)] == [
        RETRY,
        END_SWEEP,
        END_SWEEP,
    ]
    assert starts.fatal_workers == (0, 1)


def test_a_broken_machine_ends_no_fleet_that_works() -> None:
    starts = StartFailures()
    starts.record_success(1)
    assert [starts.record_failure(0, MISTAKE, 2) for _ in range(2)] == [RETRY, GIVE_UP]
    assert starts.fatal is None
    # Nor does a second one like it.
    assert [starts.record_failure(2, MISTAKE, 3) for _ in range(2)] == [RETRY, GIVE_UP]


def test_who_is_still_loading_is_waited_for() -> None:
    starts = StartFailures()
    assert [starts.record_failure(0, MISTAKE, 2) for _ in range(2)] == [RETRY, GIVE_UP]
    starts.record_success(1)
    assert starts.fatal is None
    starts = StartFailures()
    assert [starts.record_failure(0, MISTAKE, 2) for _ in range(2)] == [RETRY, GIVE_UP]
    assert [starts.record_failure(1, OTHER, 2) for _ in range(2)] == [RETRY, END_SWEEP]
    assert starts.fatal == OTHER


def test_what_takes_away_a_base_that_was_there_ends_the_sweep_with_its_last_worker() -> None:
    starts = StartFailures()
    for worker in (0, 1):
        starts.record_success(worker)
    assert [starts.record_failure(0, MISTAKE, 2) for _ in range(2)] == [RETRY, GIVE_UP]
    assert starts.record_failure(1, MISTAKE, 2) == END_SWEEP


def test_a_start_that_succeeds_clears_what_was_before() -> None:
    starts = StartFailures()
    assert starts.record_failure(0, MISTAKE, 1) == RETRY
    starts.record_success(0)
    assert [starts.record_failure(0, MISTAKE, 1) for _ in range(2)] == [RETRY, END_SWEEP]


# --- the keeper -----------------------------------------------------------------------------------


@pytest.fixture
def actor(tmp_path: Path, new_database: Callable[[str], str], study_spec: Any) -> Any:
    secret = tmp_path / "secret"
    secret.write_text(new_database("study"), encoding="utf-8")
    made = KeeperActor(study_spec(tmp_path / "run"), str(secret), DriverProcess.current("a run"))
    made.open()
    yield made
    assert made._opened is not None
    made._opened._storage.close()


def test_the_sweep_ends_with_the_error_its_place_and_what_to_do(actor: KeeperActor, tmp_path: Path) -> None:
    assert not actor.rejoin(0, "it starts").stop
    assert actor.report_start_failure(0, MISTAKE, 1).stop is False
    assert actor.start_error() is None
    reply = actor.rejoin(0, "its process died")
    assert (reply.stop, reply.pause_seconds) == (False, 0.0)
    reply = actor.report_start_failure(0, MISTAKE, 1)
    assert (reply.stop, reply.fleet_done) == (True, True)
    assert actor.rejoin(1, "it starts").stop
    error = actor.start_error()
    assert type(error) is StartFailed
    assert error.exit_code == 1
    said = str(error)
    assert said.startswith(f"no worker can start: KeyError: 'head_dim'\n  at {MISTAKE.location}\n")
    assert "reported by worker 0, twice" in said
    assert "Fix it and run the same command" in said
    assert len(said.splitlines()) == 3
    assert (tmp_path / "run" / "start_error.txt").read_text() == MISTAKE.traceback
    status = actor.status()
    assert status is not None
    assert status.ending
    assert any("could not start, trying again: KeyError" in event for event in status.events)


def test_bad_input_ends_it_with_another_exit_code(actor: KeeperActor) -> None:
    given = fault(ModelError("model folder 'x' has no weights"))
    for worker in (0, 1):
        actor.rejoin(worker, "it starts")
        actor.report_start_failure(worker, given, 2)
    error = actor.start_error()
    assert type(error) is StartRefused
    assert error.exit_code == 2
    assert "no worker can start: model folder 'x' has no weights\n  reported by workers 0 and 1." in str(
        error
    )


def test_a_worker_that_is_given_up_beside_others_is_told_and_ends_alone(actor: KeeperActor) -> None:
    for worker in (0, 1):
        actor.rejoin(worker, "it starts")
    actor.register(1, 3.0)
    actor.start_succeeded(1)
    assert not actor.report_start_failure(0, MISTAKE, 2).stop
    actor.rejoin(0, "its process died")
    reply = actor.report_start_failure(0, MISTAKE, 2)
    assert (reply.stop, reply.fleet_done) == (True, False)
    assert actor.start_error() is None
    assert actor.errors() == ["worker 0 cannot start: KeyError: 'head_dim'"]
    assert actor.ask(1, [0]).start


def test_a_worker_that_dies_of_what_may_pass_is_given_up_with_that_reason(actor: KeeperActor) -> None:
    reply = actor.rejoin(0, "its process died")
    for _ in range(20):
        if reply.stop:
            break
        assert not actor.report_start_failure(0, AWAY, 1).stop
        reply = actor.rejoin(0, "its process died")
    (error,) = actor.errors()
    assert "given up, it died 12 times in a row before any report" in error
    assert "the last time: ConnectionResetError: connection reset by peer" in error
