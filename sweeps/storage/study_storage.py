"""What the keeper needs of a storage beyond Optuna's own interface; a database and a journal file give it."""

from __future__ import annotations

import abc
from collections.abc import Container, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

from optuna.distributions import BaseDistribution
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState


class StudyStorage(BaseStorage):
    """Optuna's storage with transactions and writes of many values at once."""

    url: str
    """May hold a password."""

    @abc.abstractmethod
    def transaction(self) -> AbstractContextManager[None]:
        """Commit everything that is written inside at once, or nothing of it when an error comes out.

        For one thread, and not within another. What was read from here before an error may be stale after it.
        """

    @abc.abstractmethod
    def exchange_study_attr(self, study_id: int, key: str, old: str | None, new: str) -> bool:
        """Put `new` in the place of `old` in a study's text attribute; False when something else is there.

        `old` None: nothing may stand there yet. Of two that try, one succeeds; inside a transaction, no other
        writes to this study until its end.
        """

    @abc.abstractmethod
    def add_intermediate_values(self, values: Sequence[tuple[int, int, float]]) -> None:
        """(trial id, step, value) of steps that have no value yet."""

    @abc.abstractmethod
    def add_trial_user_attrs(self, trial_id: int, attributes: Mapping[str, Any]) -> None:
        """Attributes that the trial does not have yet."""

    @abc.abstractmethod
    def close(self) -> None:
        """Let go of connections and files."""

    # --- what Optuna's cache asks of the storage behind it ----------------------------------------

    @abc.abstractmethod
    def _create_new_trial(self, study_id: int, template_trial: FrozenTrial | None = None) -> FrozenTrial:
        """A new trial as it stands in the storage."""

    @abc.abstractmethod
    def _set_trial_param(
        self,
        trial_id: int,
        param_name: str,
        param_value_internal: float,
        distribution: BaseDistribution,
        previous_distribution: BaseDistribution | None,
    ) -> None:
        """`set_trial_param`, with the distribution of this name where it is known."""

    @abc.abstractmethod
    def _get_trials(
        self,
        study_id: int,
        states: Container[TrialState] | None,
        included_trial_ids: set[int],
        trial_id_greater_than: int,
    ) -> list[FrozenTrial]:
        """Trials by number: those of the given ids, and all with a greater id than the given one."""
