"""Records read with the `datasets` library: hub ids and folders written by `save_to_disk`."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from huggingface_hub import constants

from lora_runner.data.records.record import Origin, Record
from lora_runner.errors import DataError
from lora_runner.hub_files import hub_problem, offline_problem


def read_hub(name: str, split: str | None) -> list[Record]:
    """Read one split of a dataset by hub id, "owner/name" or "owner/name:config" (also a local folder).

    Respects HF_HUB_OFFLINE and the local cache. Raises DataError when the dataset, config or split is not
    available, and when there are several splits and none is named.
    """
    where, _, config = name.partition(":")
    is_hub_id = not Path(where).exists()
    if is_hub_id and (problem := hub_problem(where, "dataset")) is not None:
        raise DataError(problem)
    import datasets

    try:
        found = datasets.load_dataset(where, config or None, split=split)
    except (OSError, ValueError, RuntimeError, ImportError, datasets.exceptions.DatasetsError) as error:
        if is_hub_id and constants.is_offline_mode():
            raise DataError(offline_problem(where, "dataset")) from error
        reason = f"neither a local file or folder nor an available hub dataset: {error}"
        raise DataError(reason, path=name) from error
    return _rows(found, name, split)


def is_saved_dataset(folder: Path) -> bool:
    """Return whether `datasets` wrote this folder with `save_to_disk`."""
    return (folder / "dataset_dict.json").is_file() or (folder / "state.json").is_file()


def read_saved_dataset(folder: Path, split: str | None) -> list[Record]:
    """Read a folder written by `Dataset.save_to_disk` or `DatasetDict.save_to_disk`."""
    import datasets

    try:
        found = datasets.load_from_disk(str(folder))
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
        raise DataError(f"cannot be read as a saved dataset: {error}", path=folder) from error
    return _rows(found, str(folder), split)


def _rows(found: Any, name: str, split: str | None) -> list[Record]:
    if isinstance(found, dict):
        splits = list(found)
        if split is None and len(splits) == 1:
            split = splits[0]
        if split not in found:
            asked = "no split was named" if split is None else f"there is no split {split!r}"
            raise DataError(f"{asked}; splits: {', '.join(splits)}", path=name)
        found = found[split]
    rows: Iterable[dict[str, Any]] = found
    return [Record(dict(row), Origin(name, number, "row")) for number, row in enumerate(rows, start=1)]
