"""A finished sweep of 24 trials, to be confirmed."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lora_runner.config import TrialConfig
from sweeps.keeper.keeper import Keeper

Make = Callable[..., Keeper]


def noisy(slope: float = 0.3, noise: float = 0.0005) -> Callable[[TrialConfig, int], float]:
    """A bowl in both rates; the seed moves all runs alike, and each a little on its own."""

    def loss(config: TrialConfig, percent: int) -> float:
        main = abs(math.log10(config.learning_rate / 1e-3))
        embedding = abs(math.log10((config.embedding_learning_rate or 1e-4) / 1e-4))
        common = (config.seed % 89) / 500
        own = (int(config.hash(), 16) % 100 / 50 - 1) * noise if config.seed else 0.0
        schedule = 0.05 * (config.lr_scheduler_type == "constant")
        return 2 + slope * (main + 0.5 * embedding) + schedule + common + own + 1 / percent

    return loss


SWEPT = {"trials": 24, "sampler": "random", "pruner": "none", "report_at": (50, 100)}


@pytest.fixture(scope="module")
def _swept(
    tmp_path_factory: pytest.TempPathFactory, study_spec: Any, pack: Any, _empty_database: Path
) -> Path:
    """The database of a finished sweep."""
    folder = tmp_path_factory.mktemp("swept")
    file = folder / "study.db"
    shutil.copy(_empty_database, file)
    keeper = Keeper(study_spec(folder, **SWEPT), f"sqlite:///{file}")
    keeper.register(0, 4.0)
    pack(keeper, noisy(), seats=6).run()
    keeper.leave()
    return file


@pytest.fixture
def swept(_swept: Path, tmp_path: Path, make_keeper: Make) -> Keeper:
    """The keeper of a finished sweep of 24 trials; its best lies near 1e-3."""
    return make_keeper(at="study", url=f"sqlite:///{shutil.copy(_swept, tmp_path / 'study.db')}", **SWEPT)
