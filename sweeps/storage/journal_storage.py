"""A study in a journal file: Optuna's journal storage, written to in whole transactions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

from optuna.distributions import BaseDistribution
from optuna.storages.journal import JournalStorage
from optuna.trial import FrozenTrial

from sweeps.storage.journal_file import JournalReader, JournalWriter
from sweeps.storage.study_storage import StudyStorage

JOURNAL_PREFIX = "journal:"


def journal_path(url: str) -> Path | None:
    """The file of `journal:PATH`; None for every other storage."""
    return Path(url.removeprefix(JOURNAL_PREFIX)) if url.startswith(JOURNAL_PREFIX) else None


class JournalStudyStorage(JournalStorage, StudyStorage):
    """Optuna's journal storage over a file of whole batches. All reads are answered from memory."""

    def __init__(self, path: Path, *, for_reading: bool = False) -> None:
        """Raises OSError, StorageOutage and JournalDamaged."""
        self.url = f"{JOURNAL_PREFIX}{path}"
        self.file = JournalReader(path) if for_reading else JournalWriter(path)
        super().__init__(self.file)

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Keeps other writers out from its start: trials are numbered in the order of the file."""
        file = self._writer()
        if file.in_batch:
            raise RuntimeError("A transaction is open already.")
        with file.locked():
            try:
                with file.batch():
                    yield
            except BaseException:
                # Memory has replayed what was not written: like an unpickled copy, it starts over.
                self.__setstate__(self.__getstate__())
                raise

    def exchange_study_attr(self, study_id: int, key: str, old: str | None, new: str) -> bool:
        with self._within_transaction():
            if self.get_study_user_attrs(study_id).get(key) != old:
                return False
            self.set_study_user_attr(study_id, key, new)
            return True

    def add_intermediate_values(self, values: Sequence[tuple[int, int, float]]) -> None:
        with self._within_transaction():
            for trial_id, step, value in values:
                self.set_trial_intermediate_value(trial_id, step, value)

    def add_trial_user_attrs(self, trial_id: int, attributes: Mapping[str, Any]) -> None:
        with self._within_transaction():
            for key, value in attributes.items():
                self.set_trial_user_attr(trial_id, key, value)

    def create_trial(self, study_id: int, template: FrozenTrial | None) -> FrozenTrial:
        return self.get_trial(self.create_new_trial(study_id, template))

    def set_param(
        self,
        trial_id: int,
        name: str,
        value: float,
        distribution: BaseDistribution,
        earlier: BaseDistribution | None,
    ) -> None:
        """Compares with earlier trials by itself."""
        self.set_trial_param(trial_id, name, value, distribution)

    def close(self) -> None:
        if isinstance(self.file, JournalWriter):
            self.file.close()

    def _within_transaction(self) -> AbstractContextManager[None]:
        return nullcontext() if self._writer().in_batch else self.transaction()

    def _writer(self) -> JournalWriter:
        if not isinstance(self.file, JournalWriter):
            raise TypeError(f"{self.file.path} was opened for reading.")
        return self.file
