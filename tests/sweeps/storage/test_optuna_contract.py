"""Optuna's own cases for storages, run on ours."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator

import pytest
from optuna.storages import BaseStorage
from optuna.testing.pytest_storages import StorageTestCase

from sweeps.storage.cached_storage import CachedStorage
from sweeps.storage.open_storage import open_storage


class TestStudyStorage(StorageTestCase):
    @pytest.fixture
    def storage(self, new_url: Callable[[], str]) -> Iterator[BaseStorage]:
        storage = open_storage(new_url())
        yield storage
        storage.close()

    def test_pickle_storage(self, storage: BaseStorage) -> None:
        """Refused: a copy would share the file, or have no transactions of its own."""
        with pytest.raises(TypeError, match="is not pickled"):
            pickle.dumps(storage)


@pytest.mark.parametrize("kind", ["sqlite", "journal"])
class TestCachedStorage(TestStudyStorage):
    @pytest.fixture
    def storage(self, new_url: Callable[[], str]) -> Iterator[BaseStorage]:
        storage = open_storage(new_url())
        yield CachedStorage(storage)
        storage.close()
