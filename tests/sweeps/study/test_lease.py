"""One keeper per study: who may take it over, who is refused, and that a loser writes nothing."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from sweeps.errors import LeaseLost, RunFolderError, StudyHeld
from sweeps.keeper.keeper import Keeper
from sweeps.study.lease import (
    LEASE,
    DriverProcess,
    Lease,
    lease_of,
    refuse_if_held,
    refuse_unless_free,
    wait_until_free,
)
from sweeps.sweep import Sweep

Make = Callable[..., Keeper]
ELSEWHERE = DriverProcess(run="theirs", host="node7", place="node7 boot pid:[1]", pid=11, started=1.0)


@pytest.fixture
def neighbour() -> Any:
    """Another live process of this machine, as an owner."""
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    started = psutil.Process(process.pid).create_time()
    yield replace(DriverProcess.current("theirs"), pid=process.pid, started=started), process
    process.kill()
    process.wait()


def hold(keeper: Keeper, owner: DriverProcess, beat: int = 7, **fields: Any) -> Lease:
    """Put another keeper's lease into the study, as that keeper would."""
    lease = Lease(owner=owner, keeper="another", beat=beat, seen=1e9, **fields)
    keeper.study.set_user_attr("lease", lease.to_text())
    return lease


def test_every_transaction_of_a_keeper_renews_its_lease(make_keeper: Make) -> None:
    keeper = make_keeper()
    first = lease_of(keeper.study)
    assert first is not None
    assert first.owner == keeper.owner
    keeper.ask(0, [0])
    second = lease_of(keeper.study)
    assert second is not None
    assert second.beat == first.beat + 1


def test_a_keeper_without_calls_renews_its_lease_when_asked_for_its_status(
    make_keeper: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    keeper = make_keeper()
    before = lease_of(keeper.study)
    keeper.status()
    assert lease_of(keeper.study) == before
    monkeypatch.setattr("sweeps.study.lease.BEAT_SECONDS", 0.0)
    keeper.status()
    assert lease_of(keeper.study) != before


def test_a_keeper_that_lost_its_lease_writes_nothing_more(
    make_keeper: Make, report: Any, stored: Any
) -> None:
    old = make_keeper(trials=4, sampler="random")
    (placed,) = old.ask(0, [0]).start
    new = make_keeper(trials=4, sampler="random")
    (again,) = new.ask(0, [0]).start
    before = stored(new)
    for call in (
        lambda: old.report(0, [report(placed.assignment, 100, 2.0, "complete")], [], 1.0),
        lambda: old.report(0, [report(placed.assignment, 20, 2.0)], [], 1.0),
        lambda: old.ask(0, [1]),
        lambda: old.rejoin(0),
        lambda: old.prefetch(0, 9),
        lambda: old.register(0, 9.0),
    ):
        with pytest.raises(LeaseLost, match="taken over by another sweep"):
            call()
    old.close()  # does not release the other's lease
    assert stored(new) == before
    assert [file.name for file in Path(placed.assignment.folder).iterdir()] == ["config.json"]
    new.report(0, [report(again.assignment, 20, 2.5)], [], 1.0)
    assert stored(new)[0].intermediate_values == {20: 2.5}


def test_a_study_held_by_a_live_process_of_this_machine_is_refused(make_keeper: Make, neighbour: Any) -> None:
    owner, process = neighbour
    keeper = make_keeper()
    hold(keeper, owner)
    with pytest.raises(StudyHeld, match=f"process {process.pid} on {owner.host}, last sign of life"):
        make_keeper()
    with pytest.raises(StudyHeld):
        refuse_if_held(keeper.study, DriverProcess.current("mine"))
    process.kill()
    process.wait()
    assert refuse_if_held(keeper.study, DriverProcess.current("mine")) is None
    make_keeper().ask(0, [0])  # at once: its holder is dead


def test_a_new_process_with_the_number_of_a_dead_holder_is_not_taken_for_it(
    make_keeper: Make, neighbour: Any
) -> None:
    owner, _ = neighbour
    hold(make_keeper(), replace(owner, started=owner.started - 1000))
    make_keeper().ask(0, [0])


def test_a_released_study_is_free_at_once(make_keeper: Make, neighbour: Any) -> None:
    keeper = make_keeper()
    hold(keeper, neighbour[0], released=True)
    make_keeper()
    keeper = make_keeper(at="other")
    keeper.close()
    lease = lease_of(keeper.study)
    assert lease is not None
    assert lease.released


def study_with(*leases: Lease) -> Any:
    """A study that holds another lease at every look."""
    following = iter(leases)

    class Study:
        study_name = "s"

        @property
        def user_attrs(self) -> dict[str, str]:
            return {LEASE: next(following).to_text()}

    return Study()


def test_the_lease_of_an_earlier_version_is_taken_over(make_keeper: Make) -> None:
    """It has no field for the study's file."""
    keeper = make_keeper()
    values = json.loads(hold(keeper, keeper.owner).to_text())
    del values["file"]
    keeper.study.set_user_attr("lease", json.dumps(values, sort_keys=True))
    assert "file" not in keeper.study.user_attrs["lease"]
    taken = make_keeper()
    taken.ask(0, [0])
    lease = lease_of(taken.study)
    assert lease is not None
    assert (lease.owner, lease.keeper != "another") == (taken.owner, True)


def test_a_study_held_elsewhere_is_refused_when_its_lease_changes() -> None:
    study = study_with(*(Lease(owner=ELSEWHERE, keeper="k", beat=beat) for beat in (1, 1, 2)))
    with pytest.raises(StudyHeld, match="process 11 on node7"):
        wait_until_free(study, DriverProcess.current("mine"), seconds=30)


def test_a_study_held_elsewhere_is_free_when_its_lease_does_not_change() -> None:
    lease = Lease(owner=ELSEWHERE, keeper="k", beat=1)
    started = time.monotonic()
    study = study_with(*[lease] * 100)
    assert wait_until_free(study, DriverProcess.current("mine"), seconds=0.6) == lease
    assert time.monotonic() - started >= 0.6


def test_a_write_without_a_lease_waits_only_for_a_holder_elsewhere(make_keeper: Make) -> None:
    keeper = make_keeper()
    refuse_unless_free(keeper.study, seconds=30)  # this process's own
    hold(keeper, ELSEWHERE)
    started = time.monotonic()
    refuse_unless_free(keeper.study, seconds=0.6)
    assert time.monotonic() - started >= 0.6
    hold(keeper, ELSEWHERE, released=True)
    started = time.monotonic()
    refuse_unless_free(keeper.study, seconds=30)
    assert time.monotonic() - started < 10


def test_only_one_of_two_keepers_gets_a_study_that_both_take(
    make_keeper: Make, study_spec: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both have seen the same dead holder; the exchange in the database decides."""
    first = make_keeper()
    dead = hold(first, replace(ELSEWHERE, place=DriverProcess.current("x").place, pid=2**22 - 1))
    url = first._storage.url
    barrier, seen, outcomes = threading.Barrier(2), [], []

    def wait_for_both(*args: Any, **kwargs: Any) -> Lease | None:
        seen.append(wait_until_free(*args, **kwargs))
        barrier.wait(60)
        return seen[0]

    def take(number: int) -> None:
        try:
            # As if from two machines: neither is the other's own process.
            me = replace(ELSEWHERE, run=f"run {number}", pid=number)
            keeper = Keeper(study_spec(tmp_path / "run-study"), url, me)
        except (LeaseLost, StudyHeld) as error:
            outcomes.append(type(error).__name__)
        else:
            outcomes.append("held")
            keeper._storage.engine.dispose()

    monkeypatch.setattr("sweeps.keeper.keeper.wait_until_free", wait_for_both)
    threads = [threading.Thread(target=take, args=(number,)) for number in (1, 2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert seen == [dead, dead]
    assert sorted(outcomes) == ["LeaseLost", "held"]


def test_a_commit_whose_answer_was_lost_does_not_lose_the_lease(make_keeper: Make) -> None:
    keeper = make_keeper()
    hold_ = keeper._held_lease
    assert hold_ is not None
    before = hold_._held
    keeper.ask(0, [0])
    hold_._held = before  # as if the connection had broken before the answer came
    keeper.ask(0, [1])
    lease = lease_of(keeper.study)
    assert lease is not None
    assert before is not None
    assert lease.beat == before.beat + 2


# --- sweeps stop ----------------------------------------------------------------------------------


def test_a_running_sweep_is_asked_to_stop_by_its_lease(
    make_keeper: Make, neighbour: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    owner, process = neighbour
    keeper = make_keeper()
    hold(keeper, owner)
    sweep = Sweep.__new__(Sweep)
    sweep.config = SimpleNamespace(name="t", run_folder=Path("runs/t"))  # type: ignore[assignment]
    monkeypatch.setattr(Sweep, "study", lambda self: keeper.study)
    monkeypatch.setattr("sweeps.run.before_run.leases", lambda _: {"t": lease_of(keeper.study)})
    assert sweep.stop().owner == owner
    assert process.wait(20) == -signal.SIGTERM
    with pytest.raises(RunFolderError, match="the sweep 't' is not running"):
        sweep.stop()
    hold(keeper, ELSEWHERE)
    with pytest.raises(RunFolderError, match=r"runs on another machine \(process 11 on node7"):
        sweep.stop()
