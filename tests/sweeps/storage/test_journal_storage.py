"""The journal file: a batch counts whole or not at all, however it was interrupted."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.storages.journal import JournalFileBackend, JournalStorage

import sweeps.storage.journal_lock
from sweeps.errors import StorageUnreachable
from sweeps.storage.cached_storage import CachedStorage
from sweeps.storage.journal_file import JournalReader
from sweeps.storage.journal_storage import JournalStudyStorage
from sweeps.storage.open_storage import check_reachable, open_storage
from sweeps.storage.outages import StorageOutage, is_outage
from sweeps.study.study import find_study, open_study, peek, set_user_attrs


def add_trial(storage: JournalStudyStorage, number: int, name: str = "s") -> None:
    study, _ = open_study(CachedStorage(storage), name, {})
    with storage.transaction():
        trial = study.ask()
        set_user_attrs(study, trial, first=number, second=[number] * 20, third="ü")
        study.tell(trial, float(number))


def values(trials: list[Any]) -> list[float | None]:
    return [trial.value for trial in trials]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "study.log"


@pytest.fixture
def opened(path: Path) -> Iterator[Callable[[], JournalStudyStorage]]:
    journals: list[JournalStudyStorage] = []

    def opened() -> JournalStudyStorage:
        journals.append(JournalStudyStorage(path))
        return journals[-1]

    yield opened
    for journal in journals:
        journal.close()


@pytest.fixture
def written(path: Path, opened: Callable[[], JournalStudyStorage]) -> tuple[bytes, bytes]:
    """The file's content after two trials, and what a third one added: a batch of several records."""
    journal = opened()
    for number in range(2):
        add_trial(journal, number)
    before = path.read_bytes()
    add_trial(journal, 2)
    journal.close()
    return before, path.read_bytes().removeprefix(before)


def test_the_file_is_in_optunas_format_with_a_key_that_optuna_ignores(written: tuple[bytes, bytes]) -> None:
    records = [json.loads(line) for line in written[1].splitlines()]
    assert len(records) == 5
    assert [record["batch"] for record in records] == [[i, 5] for i in range(1, 6)]
    assert "batch" not in json.loads(written[0].splitlines()[0])


def test_a_batch_cut_off_anywhere_does_not_count(
    path: Path, written: tuple[bytes, bytes], plainly: Callable[..., Any]
) -> None:
    before, last = written
    ends = [i + 1 for i, byte in enumerate(last) if byte == ord("\n")]
    cuts = sorted(
        {1, 2, len(last) - 1, *range(5, len(last), 37), *ends[:-1], *(end + 1 for end in ends[:-1])}
    )
    kept = path.parent / f"{path.name}.torn-1"
    for cut in cuts:
        path.write_bytes(before + last[:cut])
        reader = peek(f"journal:{path}", "s")
        assert reader is not None
        assert values(reader.get_trials()) == [0.0, 1.0]
        assert path.read_bytes() == before + last[:cut]  # a reader changes nothing
        journal = JournalStudyStorage(path)
        assert path.read_bytes() == before
        assert kept.read_bytes() == last[:cut]
        kept.unlink()
        add_trial(journal, 7)
        journal.close()
        assert values(reader.get_trials()) == [0.0, 1.0, 7.0]
        assert values(plainly(f"journal:{path}", "s")) == [0.0, 1.0, 7.0]


@pytest.mark.parametrize("hole", [(0, 40), (60, 300), (300, None)])
def test_a_batch_whose_content_did_not_reach_the_disk_does_not_count(
    path: Path,
    written: tuple[bytes, bytes],
    opened: Callable[[], JournalStudyStorage],
    hole: tuple[int, int | None],
) -> None:
    """After a power failure a file may have its full length and hold zeros."""
    before, last = written
    start, stop = hole[0], len(last) if hole[1] is None else hole[1]
    path.write_bytes(before + last[:start] + bytes(stop - start) + last[stop:])
    study = find_study(opened(), "s")
    assert study is not None
    assert values(study.get_trials()) == [0.0, 1.0]
    assert path.read_bytes() == before


def test_torn_ends_are_kept_one_by_one(
    path: Path, written: tuple[bytes, bytes], opened: Callable[[], JournalStudyStorage]
) -> None:
    before, last = written
    for cut in (10, 20, 30):
        path.write_bytes(before + last[:cut])
        opened()
    torn = [path.with_name(f"{path.name}.torn-{number}").read_bytes() for number in (1, 2, 3)]
    assert torn == [last[:10], last[:20], last[:30]]


def test_damage_before_the_end_is_refused_and_left_as_it_is(
    path: Path, written: tuple[bytes, bytes], opened: Callable[[], JournalStudyStorage]
) -> None:
    before, last = written
    lines = before.splitlines(keepends=True)
    for damaged in (
        before.replace(b'"op_code"', b'"op_c', 1) + last,
        b"".join([*lines[:-2], lines[-1], last]),
        before + last[: len(last) // 2] + b"\n" + last,
        before + b'{"op_code":2}nonsense\n' + last,
    ):
        path.write_bytes(damaged)
        for attempt in (
            lambda: open_storage(f"journal:{path}"),
            lambda: open_storage(f"journal:{path}", for_reading=True),
            lambda: check_reachable(f"journal:{path}"),
            lambda: peek(f"journal:{path}", "s"),
        ):
            with pytest.raises(StorageUnreachable, match="is damaged at line") as caught:
                attempt()
            assert caught.value.exit_code == 2
            assert not is_outage(caught.value)
        assert path.read_bytes() == damaged
    assert [p.name for p in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize("text", ["my diary", "my diary\n", '{"my": "diary"}\n', "[1, 2]\n", "\n\n"])
def test_a_file_that_is_no_journal_is_refused_and_left_as_it_is(path: Path, text: str) -> None:
    path.write_text(text)
    for attempt in (open_storage, check_reachable, lambda url: peek(url, "s")):
        with pytest.raises(StorageUnreachable, match="is not a journal"):
            attempt(f"journal:{path}")
    assert path.read_text() == text
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_a_journal_written_by_optuna_is_read_and_appended_to(
    path: Path, opened: Callable[[], JournalStudyStorage], plainly: Callable[..., Any]
) -> None:
    theirs = optuna.create_study(study_name="s", storage=JournalStorage(JournalFileBackend(str(path))))
    theirs.set_user_attr("identity", {})
    theirs.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=3)
    with open(path, "ab") as file:
        file.write(b'{"op_code":5,"worker_')
    journal = opened()
    add_trial(journal, 7)
    theirs.set_user_attr("note", "by Optuna, while we are at it")
    add_trial(journal, 8)
    study = find_study(journal, "s")
    assert study is not None
    assert values(study.get_trials()) == values(plainly(f"journal:{path}", "s"))
    assert values(study.get_trials())[3:] == [7.0, 8.0]
    assert study.user_attrs["note"] == "by Optuna, while we are at it"


def test_what_another_program_writes_during_a_transaction_is_not_lost(
    path: Path, opened: Callable[[], JournalStudyStorage], plainly: Callable[..., Any]
) -> None:
    journal = opened()
    add_trial(journal, 0)
    theirs = optuna.load_study(study_name="s", storage=JournalStorage(JournalFileBackend(str(path))))
    study = find_study(CachedStorage(journal), "s")
    assert study is not None

    def interrupted() -> None:
        with journal.transaction():
            study.ask()
            theirs.add_trial(optuna.trial.create_trial(value=5.0))

    with pytest.raises(StorageOutage, match="written to by another program") as caught:
        interrupted()
    assert is_outage(caught.value)  # the same call again succeeds
    add_trial(journal, 1)
    assert values(plainly(f"journal:{path}", "s")) == [0.0, 5.0, 1.0]


def test_writers_wait_for_each_other(path: Path, opened: Callable[[], JournalStudyStorage]) -> None:
    one, other = opened(), opened()
    study, _ = open_study(CachedStorage(one), "s", {})
    done = threading.Thread(target=add_trial, args=(other, 1))
    with one.transaction():
        done.start()
        trial = study.ask()
        done.join(timeout=0.2)
        assert done.is_alive()
        study.tell(trial, 0.0)
    done.join(timeout=10)
    assert not done.is_alive()
    found = find_study(one, "s")
    assert found is not None
    assert values(found.get_trials()) == [0.0, 1.0]


def test_a_lock_that_is_held_too_long_is_an_outage(
    opened: Callable[[], JournalStudyStorage], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweeps.storage.journal_lock, "LOCK_SECONDS", 0.1)
    one, other = opened(), opened()
    add_trial(one, 0)

    def waits_in_vain() -> None:
        with one.transaction():
            add_trial(other, 1)

    with pytest.raises(StorageOutage, match="locked by another process") as caught:
        waits_in_vain()
    assert is_outage(caught.value)
    add_trial(other, 2)


def test_the_lock_of_a_killed_writer_does_not_hold_up_the_next(
    path: Path, opened: Callable[[], JournalStudyStorage]
) -> None:
    add_trial(opened(), 0)
    code = (
        "import os, signal, sys; from pathlib import Path\n"
        "from sweeps.storage.journal_storage import JournalStudyStorage\n"
        "journal = JournalStudyStorage(Path(sys.argv[1]))\n"
        "with journal.file.locked(), journal.file._append_lock.held(): os.kill(os.getpid(), signal.SIGKILL)"
    )
    killed = subprocess.run([sys.executable, "-c", code, str(path)], timeout=60)
    assert killed.returncode < 0
    assert os.path.islink(f"{path}.lock")
    journal = opened()
    add_trial(journal, 1)
    assert not os.path.lexists(f"{path}.lock")


def test_the_lock_of_a_writer_of_optunas_own_is_waited_for(
    path: Path, opened: Callable[[], JournalStudyStorage]
) -> None:
    journal = opened()
    theirs = optuna.storages.journal.JournalFileSymlinkLock(str(path))
    theirs.acquire()
    ours = threading.Thread(target=add_trial, args=(journal, 0))
    ours.start()
    ours.join(timeout=0.2)
    assert ours.is_alive()
    theirs.release()
    ours.join(timeout=10)
    assert not ours.is_alive()


def test_a_file_that_was_removed_or_replaced_is_not_written_to(
    path: Path, opened: Callable[[], JournalStudyStorage], tmp_path: Path
) -> None:
    journal = opened()
    add_trial(journal, 0)
    path.rename(tmp_path / "elsewhere")
    with pytest.raises(StorageOutage, match="is gone"):
        add_trial(journal, 1)
    path.write_bytes((tmp_path / "elsewhere").read_bytes())
    with pytest.raises(StorageOutage, match="replaced by another file"):
        add_trial(journal, 1)
    (tmp_path / "elsewhere").rename(path)
    add_trial(journal, 1)


def test_transactions_do_not_nest(opened: Callable[[], JournalStudyStorage]) -> None:
    journal = opened()
    study, _ = open_study(CachedStorage(journal), "s", {})
    with journal.transaction():
        study.set_user_attr("note", 1)
        with pytest.raises(RuntimeError, match="open already"), journal.transaction():
            pass
        study.set_user_attr("note", 2)
    assert study.user_attrs["note"] == 2


def test_reading_continues_where_it_stopped(path: Path, opened: Callable[[], JournalStudyStorage]) -> None:
    journal = opened()
    reader = JournalReader(path)
    seen: list[dict[str, Any]] = []
    for number in range(4):
        add_trial(journal, number)
        seen += reader.read_logs(len(seen))
    assert seen == JournalReader(path).read_logs(0)
    assert reader.read_logs(3) == seen[3:]
    assert reader.read_logs(0) == seen
