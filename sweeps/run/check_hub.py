"""Asks the hub for the model and data that a sweep names, before anything large is imported."""

from __future__ import annotations

from pathlib import Path

from lora_runner.errors import DataError, ModelError
from lora_runner.hub_files import hub_problem
from sweeps.config import SweepConfig


def check_hub(config: SweepConfig) -> None:
    """Raise ModelError or DataError for a hub id that is not there, gated, or out of reach and not cached."""
    model = config.model
    if not Path(model.name).is_absolute() and (problem := hub_problem(model.name, "model", model.revision)):
        raise ModelError(problem)
    for source in filter(None, (config.data.train, config.data.eval)):
        name = source.partition(":")[0]
        is_elsewhere = Path(source).is_absolute() or source in config.unwritten
        if not is_elsewhere and (problem := hub_problem(name, "dataset")):
            raise DataError(problem)
