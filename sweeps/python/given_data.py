"""Records given in Python as the data file that stands for them.

The file is called by its content, so that equal records are the same data and changed ones are noticed.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from files_and_text.plain_values import plain
from lora_runner.errors import DataError
from sweeps.artifacts.run_folder import DATA_FOLDER
from sweeps.config import SweepConfig

_KINDS = "a path, a hub id, a datasets.Dataset, a DataFrame or a list of records"


@contextmanager
def readable(config: SweepConfig) -> Iterator[SweepConfig]:
    """The config with its unwritten data in a temporary folder; errors of that data name the argument."""
    missing = {path: content for path, content in config.unwritten.items() if not Path(path).is_file()}
    if not missing:
        yield config
        return
    with tempfile.TemporaryDirectory(prefix="sweeps-data-") as name:
        there: dict[str, Any] = {}
        for role in ("train", "eval"):
            if (path := getattr(config.data, role)) in missing:
                file = Path(name) / Path(path).name
                file.write_bytes(missing[path])
                there[role] = str(file)
        try:
            yield config.model_copy(update={"data": dataclasses.replace(config.data, **there)})
        except DataError as error:
            raise DataError(
                _by_role(error.message, name), path=error.path and _by_role(error.path, name), line=error.line
            ) from None


def _by_role(text: str, folder: str) -> str:
    return re.sub(rf"{re.escape(folder)}/(train|eval)-\w+\.jsonl", r"\1", text)


@dataclass(frozen=True)
class GivenData:
    """JSON lines that are not written yet."""

    file: str
    """`data/train-1a2b3c4d5e6f.jsonl`, in the run folder."""
    content: bytes


def read_given(role: str, value: Any) -> GivenData | str:
    """The data of one role (train, eval): a path or hub id as text, or records as the file to be written.

    Raises ValueError with what follows the role's name: "must be ...; got ...".
    """
    if isinstance(value, str | Path):
        return str(value)
    if isinstance(value, Mapping):  # datasets.DatasetDict is one too
        names = ", ".join(map(str, value)) or "nothing"
        raise ValueError(f"must be {_KINDS}; got a mapping of {names}: give one of them")
    if type(value).__name__ == "DataFrame":  # of pandas or another library, which need not be installed
        to_records = getattr(value, "to_dicts", None) or partial(value.to_dict, "records")
        value = to_records()
    if not isinstance(value, Iterable):
        raise ValueError(f"must be {_KINDS}; got {type(value).__name__}")
    lines = []
    for number, record in enumerate(value, start=1):
        if not isinstance(record, Mapping):
            raise ValueError(f"record {number} must be a dict; got {type(record).__name__}")
        try:
            lines.append(json.dumps(plain(dict(record)), ensure_ascii=False, allow_nan=False))
        except (TypeError, ValueError):
            kinds = sorted({type(item).__name__ for item in record.values()})
            message = f"record {number} must hold text, numbers, lists and dicts; got {', '.join(kinds)}"
            raise ValueError(message) from None
    if not lines:
        raise ValueError("must hold at least one record; got none")
    content = "".join(f"{line}\n" for line in lines).encode("utf-8", "surrogatepass")
    return GivenData(f"{DATA_FOLDER}/{role}-{hashlib.sha256(content).hexdigest()[:12]}.jsonl", content)
