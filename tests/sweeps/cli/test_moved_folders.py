"""A run folder that was renamed or copied is read and run where it is now."""

from __future__ import annotations

import shutil
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
import psutil
import pytest

from sweeps.artifacts.run_folder import write_run_folder
from sweeps.keeper.keeper import Keeper
from sweeps.run.same_name import same_name_note
from sweeps.study.lease import LEASE, DriverProcess, Lease, lease_of, refuse_if_held
from sweeps.sweep import Sweep, stoppable
from tests.sweeps.cli.calling import Call, edit, listing

READERS = (("status",), ("results",), ("verdict",), ("report",), ("export", "--to", "yaml"))


def test_a_renamed_run_folder_is_read_and_planned_where_it_is(call: Call, ran: Path) -> None:
    losses = [line for line in call("results", ran, "--csv").out.splitlines()]
    renamed = ran.rename(ran.parent.parent / "another name")
    for command in READERS:
        answer = call(command[0], renamed, *command[1:])
        assert answer.code == 0, (command, answer.err)
    assert call("results", renamed, "--csv").out.splitlines() == losses
    assert (renamed / "report.html").is_file()
    assert not ran.exists()
    sweep = Sweep.load(renamed)
    assert sweep.plan().study_spec.run_folder == str(renamed)
    write_run_folder(sweep.config)
    assert Sweep.load(renamed).config == sweep.config


def test_a_first_run_says_that_a_renamed_folder_holds_the_sweep(ran: Path) -> None:
    fresh = Sweep.load(ran.parent.parent / "s.yaml").config
    assert same_name_note(fresh) is None  # its own folder holds it
    renamed = ran.rename(ran.parent / "another name")
    note = same_name_note(fresh)
    assert note is not None
    assert note.startswith(f"note: {renamed} holds a sweep of the same name, 'small'; this starts a new one")
    assert note.endswith(f"To go on with that one: sweeps run '{renamed}'")
    (renamed / "study.db").unlink()
    assert same_name_note(fresh) is None


def test_a_copied_folder_goes_on_with_its_own_study(ran: Path, pack: Any) -> None:
    before = listing(ran)
    copy = shutil.copytree(ran, ran.parent / "copy")
    sweep = Sweep.load(copy, {"trials": 6})
    keeper = Keeper(sweep.plan().study_spec, sweep.storage_url)
    keeper.register(0, 3.5)
    pack(keeper).run()
    keeper._storage.close()
    assert sweep.status().finished == 6
    assert Sweep.load(ran).status().finished == 4
    assert listing(ran) == before


@pytest.mark.parametrize("storage", ["null", "journal:runs/small/study.log"])
def test_a_copy_of_a_running_sweep_is_not_running(folder: Path, pack: Any, storage: str) -> None:
    with (folder / "s.yaml").open("a") as file:
        file.write(f"storage: {storage}\n")
    sweep = Sweep.load(folder / "s.yaml")
    write_run_folder(sweep.config)
    parent = psutil.Process().parent()
    assert parent is not None
    owner = replace(DriverProcess.current("its"), pid=parent.pid, started=parent.create_time())
    keeper = Keeper(sweep.plan().study_spec, sweep.storage_url, owner)
    copy = Sweep.load(shutil.copytree(sweep.run_folder, folder / "copy"))
    keeper._storage.close()
    found, original = lease_of(copy.study()), lease_of(sweep.study())
    assert found is not None
    assert original is not None
    assert (found.released, original.released) == (True, False)
    assert refuse_if_held(copy.study(), DriverProcess.current("mine")) is None
    with pytest.raises(Exception, match="is not running"):
        copy.stop()
    # The lease is exchanged for the copy's own, which says which file it is for.
    mine = Keeper(copy.plan().study_spec, copy.storage_url)
    pack(mine).run()
    mine._storage.close()
    assert copy.status().finished == 4
    assert sweep.status().finished == 0


def test_a_copy_of_a_folder_whose_study_is_elsewhere_reads_and_is_not_run(
    call: Call, folder: Path, pack: Any
) -> None:
    with (folder / "s.yaml").open("a") as file:
        file.write("storage: journal:study.log\n")
    sweep = Sweep.load(folder / "s.yaml")
    write_run_folder(sweep.config)
    keeper = Keeper(sweep.plan().study_spec, sweep.storage_url)
    keeper.register(0, 3.5)
    pack(keeper).run()
    keeper.leave()
    copy = shutil.copytree(sweep.run_folder, folder / "copy")
    for command in READERS:
        assert call(command[0], copy, *command[1:]).code == 0
    before = listing(folder)
    for command in ("run", "confirm"):
        answer = call(command, copy)
        assert answer.code == 2
        assert f"is run in {sweep.run_folder}, of which {copy} is a copy" in answer.err
    assert listing(folder) == before
    # With a study of its own, or once the original is gone, nothing stands against it.
    assert call("move", copy, "--to", f"journal:{copy}/study.log").code == 0
    moved = Sweep.load(copy)
    assert moved.config.storage == f"journal:{copy}/study.log"
    edit(copy / "sweep.yaml", "journal:./study.log", f"journal:{folder}/study.log")
    sweep.run_folder.rename(folder / "gone")
    from sweeps.study.home_folder import refuse_copy

    refuse_copy(Sweep.load(copy).config)


def test_the_lease_in_an_uncopied_file_stays_as_it_is(ran: Path) -> None:
    sweep = Sweep.load(ran)
    study = optuna.load_study(study_name="small", storage=sweep.storage_url)
    lease = Lease.from_text(study.user_attrs[LEASE])
    assert lease.file
    ran = ran.rename(ran.with_name("renamed"))
    found = lease_of(Sweep.load(ran).study())
    assert found == lease
    assert found is not None
    assert found.to_text() == study.user_attrs[LEASE]


def test_a_sweep_that_runs_in_this_process_is_stopped_without_ending_it(ran: Path) -> None:
    sweep = Sweep.load(ran)
    keeper = Keeper(sweep.plan().study_spec, sweep.storage_url)
    wanted = threading.Event()
    with stoppable(ran, wanted):
        assert Sweep.load(ran).stop().owner == keeper.owner
    assert wanted.is_set()
    keeper.leave()
