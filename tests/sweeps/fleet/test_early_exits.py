"""Workers that end before they can call the keeper: Ray's text is treated as an error they report."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import ray
from rich.console import Console

from sweeps.errors import StartFailed
from sweeps.fleet.early_exits import ReportEarlyExits, parse_ray_error
from sweeps.keeper.actor import KeeperActor
from sweeps.keeper.protocol import Reply
from sweeps.study.lease import DriverProcess
from tests.chaos import rehearsal
from tests.on_ray import ON_RAY

NO_MODULE = """\
Failure # 1 (occurred at 2026-11-28_13-55-47)
The actor died because of an error raised in its creation task, another one
OSError: earlier
Failure # 2 (occurred at 2026-11-28_13-55-51)
The actor died because of an error raised in its creation task, \x1b[36mray::X.__init__()\x1b[39m (pid=7)
RuntimeError: The actor with name X failed to import on the worker. This may be because needed library ...

  File "/home/u/job.py", line 37, in there
    import_module("ours")
    ^^^^^^^^^^^^^^^^^^^^^
  File "<frozen importlib._bootstrap>", line 1140, in _find_and_load_unlocked
{raised}
"""
DIED = "The actor died unexpectedly before finishing this task.\n\tpid: 7895\nWorker exit type: SYSTEM_ERROR"
ENVIRONMENT = "Failed to set up runtime environment.\nCould not create the actor: pip found no package 'x'"
MISSING = "ModuleNotFoundError: No module named 'ours'"


@pytest.mark.parametrize(
    ("raised", "may_pass"),
    [
        (MISSING, False),
        ("AttributeError: module 'sweeps.fleet.worker' has no attribute 'Worker'", False),
        ("OSError: [Errno 2] No such file or directory: 'x'", False),
        ("OSError: [Errno 28] No space left on device", True),
        ("MemoryError: none left", True),
        ("torch.OutOfMemoryError: CUDA out of memory", True),
        ("ConnectionResetError: reset by peer", True),
    ],
)
def test_the_last_error_is_read_with_its_place(raised: str, may_pass: bool) -> None:
    fault = parse_ray_error(NO_MODULE.format(raised=raised))
    assert (fault.message, fault.location, fault.is_transient) == (raised, "/home/u/job.py:37", may_pass)
    assert "earlier" not in fault.traceback
    assert "\x1b" not in fault.traceback


def test_a_death_may_pass_and_an_environment_that_fails_does_not() -> None:
    died = parse_ray_error(DIED)
    assert (died.message, died.is_transient) == (
        "The actor died unexpectedly before finishing this task.",
        True,
    )
    assert parse_ray_error("").is_transient
    failed = parse_ray_error(ENVIRONMENT)
    assert not failed.is_transient
    assert "pip found no package 'x'" in failed.message


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


def test_the_same_words_twice_end_the_sweep(actor: KeeperActor) -> None:
    fault = parse_ray_error(NO_MODULE.format(raised=MISSING))
    assert actor.report_early_exit(0, fault, 1) == Reply()
    assert actor.report_early_exit(0, fault, 1).fleet_done
    error = actor.start_error()
    assert error is not None
    assert str(error).startswith(f"no worker can start: {MISSING}\n  at /home/u/job.py:37\n")


def test_a_worker_that_told_the_keeper_itself_counts_once(actor: KeeperActor) -> None:
    fault = parse_ray_error(NO_MODULE.format(raised=MISSING))
    actor.rejoin(0, "it starts")
    assert not actor.report_start_failure(0, fault, 1).stop
    assert actor.report_early_exit(0, fault, 1) == Reply()
    assert actor.start_error() is None


def test_processes_that_die_without_a_word_are_given_up_after_a_while(actor: KeeperActor) -> None:
    replies = [actor.report_early_exit(0, parse_ray_error(DIED), 1) for _ in range(13)]
    assert [reply.stop for reply in replies] == [False] * 12 + [True]
    assert replies[-1].fleet_done
    (error,) = actor.errors()
    assert "given up, it died 12 times" in error
    assert error.endswith("the last time: The actor died unexpectedly before finishing this task.")


# --- Tune -----------------------------------------------------------------------------------------


class _Keeper:
    """Gives the prepared replies in turn, and collects the errors in `heard`."""

    def __init__(self, *replies: Reply) -> None:
        self.heard: list[str] = []
        left = list(replies)

        def answer(worker: int, fault: Any, num_workers: int) -> Reply:
            self.heard.append(fault.message)
            return left.pop(0)

        self.report_early_exit = SimpleNamespace(remote=answer)


def test_a_worker_that_is_given_up_gets_one_more_try_and_one_that_started_is_not_told_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ray.get", lambda answer, timeout: answer)
    (tmp_path / "error.txt").write_text(NO_MODULE.format(raised=MISSING))
    trial = SimpleNamespace(
        config={"worker": 0}, error_file=str(tmp_path / "error.txt"), max_failures=-1, status="PENDING"
    )
    keeper, ended = _Keeper(Reply(), Reply(stop=True), Reply(stop=True, fleet_done=True)), list[str]()
    callback = ReportEarlyExits(keeper, 2, end=lambda: ended.append("over"), is_to_stop=lambda: False)
    callback.on_trial_start(0, [trial], trial)
    callback.on_trial_recover(0, [trial], trial)
    assert keeper.heard == []
    for most in (-1, 0):
        callback.on_trial_recover(0, [trial], trial)
        assert trial.max_failures == most
    assert (keeper.heard, callback.given_up, ended) == ([MISSING] * 2, {MISSING}, [])
    callback.on_trial_start(0, [trial], trial)
    assert trial.max_failures == -1
    trial.error_file = None
    for _ in range(2):
        callback.on_trial_recover(0, [trial], trial)
    assert ended == ["over"]


class _SpecOfAMissingModule(rehearsal.RehearsedWorkerSpec):
    """A worker spec that only the driver can load."""

    def __reduce__(self) -> Any:
        return importlib.import_module, ("a_module_of_the_user",)


class TestOnRay:
    pytestmark = ON_RAY

    def test_a_worker_spec_that_no_worker_can_load_ends_the_sweep_with_that_error(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.delenv("SWEEPS_STORAGE", raising=False)
        monkeypatch.setattr(rehearsal, "RehearsedWorkerSpec", _SpecOfAMissingModule)
        (tmp_path / "s.yaml").write_text(
            "name: t\nmodel: {name: /nowhere, size: 8e9}\ndata: {train: /nowhere.jsonl}\n"
            f"training: {{max_steps: 40}}\ntrials: 3\nseats: 1\nworkers: 1\noutput: {tmp_path}\n"
        )
        sweep = rehearsal.RehearsedSweep.load(tmp_path / "s.yaml", check_files=False)
        try:
            with pytest.raises(StartFailed, match="No module named 'a_module_of_the_user'") as caught:
                sweep.run(console=Console(quiet=True))
        finally:
            ray.shutdown()
        assert type(caught.value).exit_code == 1
        assert len(str(caught.value).splitlines()) == 3
        assert "a_module_of_the_user" in (tmp_path / "t" / "start_error.txt").read_text()
