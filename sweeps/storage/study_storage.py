"""What the keeper needs of a storage beyond Optuna's own interface."""

from __future__ import annotations

import abc
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, NoReturn

from optuna.distributions import BaseDistribution
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial


class StudyStorage(BaseStorage):
    """Optuna's storage with transactions, and with writes of many values at once."""

    url: str
    """May hold a password."""

    @abc.abstractmethod
    def transaction(self) -> AbstractContextManager[None]:
        """Commit all writes made inside together, or none of them when an error is raised.

        For one thread; transactions do not nest. What was read before an error may be stale after it.
        """

    @abc.abstractmethod
    def exchange_study_attr(self, study_id: int, key: str, old: str | None, new: str) -> bool:
        """Replace the text `old` of a study's attribute by `new`; False when it holds anything else.

        `old` None: only where the attribute is not set. Of two that try, one succeeds; inside a transaction,
        no other process writes to this study until the transaction ends.
        """

    @abc.abstractmethod
    def add_intermediate_values(self, values: Sequence[tuple[int, int, float]]) -> None:
        """Write (trial id, step, value) of steps that have no value yet."""

    @abc.abstractmethod
    def add_trial_user_attrs(self, trial_id: int, attributes: Mapping[str, Any]) -> None:
        """Write attributes that the trial does not have yet."""

    @abc.abstractmethod
    def create_trial(self, study_id: int, template: FrozenTrial | None) -> FrozenTrial:
        """`create_new_trial`, returning the trial and not its id alone."""

    @abc.abstractmethod
    def set_param(
        self,
        trial_id: int,
        name: str,
        value: float,
        distribution: BaseDistribution,
        earlier: BaseDistribution | None,
    ) -> None:
        """`set_trial_param`, given the distribution of this name in an earlier trial where it is known."""

    @abc.abstractmethod
    def close(self) -> None:
        """Close connections and files."""

    def __reduce__(self) -> NoReturn:
        """A copy would share the file, or lack what ends a transaction at the first error."""
        raise TypeError("a storage is not pickled: open it in the process that uses it")
