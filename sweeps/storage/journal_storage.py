"""A study in a journal file: Optuna's journal storage, written to in whole transactions."""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from optuna.distributions import BaseDistribution
from optuna.storages.journal import JournalStorage
from optuna.storages.journal._storage import JournalOperation, JournalStorageReplayResult
from optuna.trial import FrozenTrial, TrialState

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
        """Other writers are kept out from the beginning: trials are numbered in the order of the file."""
        file = self._writer()
        if file.in_batch:
            raise RuntimeError("A transaction is open already.")
        with file.locked():
            with self._thread_lock:
                self._sync_with_backend()
            try:
                with file.batch():
                    yield
            except BaseException:
                # Memory has replayed what was not written.
                self._replay_result = JournalStorageReplayResult(self._worker_id_prefix)
                raise

    def exchange_study_attr(self, study_id: int, key: str, old: str | None, new: str) -> bool:
        if not self._writer().in_batch:
            with self.transaction():
                return self.exchange_study_attr(study_id, key, old, new)
        if self.get_study_user_attrs(study_id).get(key) != old:
            return False
        self.set_study_user_attr(study_id, key, new)
        return True

    def add_intermediate_values(self, values: Sequence[tuple[int, int, float]]) -> None:
        self._write_together(
            JournalOperation.SET_TRIAL_INTERMEDIATE_VALUE,
            [
                {"trial_id": trial_id, "step": step, "intermediate_value": value}
                for trial_id, step, value in values
            ],
        )

    def add_trial_user_attrs(self, trial_id: int, attributes: Mapping[str, Any]) -> None:
        self._write_together(
            JournalOperation.SET_TRIAL_USER_ATTR,
            [{"trial_id": trial_id, "user_attr": {key: value}} for key, value in attributes.items()],
        )

    def close(self) -> None:
        if isinstance(self.file, JournalWriter):
            self.file.close()

    def _writer(self) -> JournalWriter:
        if not isinstance(self.file, JournalWriter):
            raise TypeError(f"{self.file.path} was opened for reading.")
        return self.file

    def _write_together(self, operation: JournalOperation, fields: Sequence[Mapping[str, Any]]) -> None:
        with self._thread_lock:
            worker_id = self._replay_result.worker_id
            head = {"op_code": operation, "worker_id": worker_id}
            if fields:
                self._backend.append_logs([{**head, **each} for each in fields])
            self._sync_with_backend()

    # --- what Optuna's cache asks of the storage behind it ----------------------------------------

    def _create_new_trial(self, study_id: int, template_trial: FrozenTrial | None = None) -> FrozenTrial:
        return self.get_trial(self.create_new_trial(study_id, template_trial))

    def _set_trial_param(
        self,
        trial_id: int,
        param_name: str,
        param_value_internal: float,
        distribution: BaseDistribution,
        previous_distribution: BaseDistribution | None,
    ) -> None:
        # Replaying compares with the distribution of an earlier trial by itself.
        self.set_trial_param(trial_id, param_name, param_value_internal, distribution)

    def _get_trials(
        self,
        study_id: int,
        states: Container[TrialState] | None,
        included_trial_ids: set[int],
        trial_id_greater_than: int,
    ) -> list[FrozenTrial]:
        return [
            trial
            for trial in self.get_all_trials(study_id, deepcopy=False, states=states)
            if trial._trial_id > trial_id_greater_than or trial._trial_id in included_trial_ids
        ]
