"""Whether the files that a sweep names exist and can be what the keys say. Nothing is loaded."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

from files_and_text.nearest_name import did_you_mean
from files_and_text.yaml_lines import KeyPath
from sweeps.config.partial_config import PartialConfig
from sweeps.config.paths import DATA_SUFFIXES, is_hub_id, is_template_file
from sweeps.config.validation import dotted

_PICKLED = (".bin", ".pt", ".pth", ".ckpt")
_LFS_POINTER = b"version https://git-lfs"


def check_named_files(partial: PartialConfig) -> None:
    """Report what is wrong with the files that the config names."""
    config = partial.config
    data, metric = config.data, config.metric
    for problem in _model_problems(config.model.name):
        partial.add(("model", "name"), problem)
    for key, source in (("train", data.train), ("eval", data.eval)):
        is_here = source is None or source in config.unwritten
        if not is_here and (message := _data_problem(str(source))) is not None:
            partial.add(("data", key), f"data.{key}: {message}")
    files: list[tuple[KeyPath, str | None]] = [
        (("data", "chat_template"), data.chat_template if is_template_file(data.chat_template) else None),
        (("metric", "file"), None if metric is None else metric.file),
        *((("guidelines", index), file) for index, file in enumerate(config.guidelines)),
    ]
    for path, file in files:
        if file is not None and (message := _file_problem(Path(file))) is not None:
            partial.add(path, f"{dotted(path)}: {message}")
    folder = Path(config.output)
    for taken in (path for path in (folder, *folder.parents) if path.exists() and not path.is_dir()):
        partial.add(
            ("output",), f"output must be a folder; got {str(folder)!r}, where {str(taken)!r} is a file"
        )


def _data_problem(source: str) -> str | None:
    path = Path(source)
    if not path.is_absolute():
        is_known = is_hub_id(source, data=True)
        return None if is_known else f"there is no file {source!r}, and it is not a hub id such as owner/name"
    if path.is_dir():
        return None if any(path.iterdir()) else f"the folder {source!r} is empty"
    if not path.exists():
        return _file_problem(path)
    if path.suffix.lower() not in DATA_SUFFIXES:
        return f"a data file ends in {', '.join(DATA_SUFFIXES)}; got {path.name!r}"
    if path.stat().st_size == 0:
        return f"a dataset must have at least one record; the file {source!r} is empty"
    return None


def _model_problems(name: str) -> Iterator[str]:
    folder = Path(name)
    if not folder.is_absolute():
        if not is_hub_id(name):
            yield f"model: there is no folder {name!r}, and it is not a hub id such as owner/name"
        return
    if not folder.exists():
        yield f"model: {_file_problem(folder, kind='folder')}"
        return
    if not folder.is_dir():
        yield f"model must be a folder with config.json and *.safetensors; got the file {name!r}"
        return
    if not (folder / "config.json").is_file():
        if (folder / "adapter_config.json").is_file():
            yield f"model must be a base model; the folder {name!r} holds an adapter"
        else:
            yield f"the model folder {name!r} has no config.json"
    yield from _weights_problems(folder)


def _weights_problems(folder: Path) -> Iterator[str]:
    names = sorted(entry.name for entry in folder.iterdir() if entry.is_file())
    weights = [name for name in names if name.endswith(".safetensors") and not name.startswith("adapter_")]
    pickled = [name for name in names if name.endswith(_PICKLED) and name != "training_args.bin"]
    if not weights:
        message = f"the model folder {str(folder)!r} has no weights (*.safetensors)"
        if pickled:
            # Loading a pickle can run any code.
            message += (
                f"; {pickled[0]!r} is a pickle, which can run code when it is loaded, and is never read"
            )
        yield message
        return
    for name in weights:
        with (folder / name).open("rb") as file:
            if file.read(len(_LFS_POINTER)) == _LFS_POINTER:
                yield f"{str(folder / name)!r} is a Git LFS pointer, not weights; run git lfs pull there"
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        try:
            shards = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
        except (ValueError, KeyError, TypeError, AttributeError, OSError):
            yield f"the index {str(index)!r} cannot be read"
            return
        missing = sorted(str(shard) for shard in shards - set(weights))
        if missing:
            others = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
            yield f"the model folder {str(folder)!r} lacks {missing[0]}{others}, listed in its index"


def _file_problem(path: Path, *, kind: str = "file") -> str | None:
    """Why a file cannot be read, with the most similar name in its folder; None if it can be."""
    if path.is_file():
        return None if os.access(path, os.R_OK) else f"the file {str(path)!r} cannot be read"
    if path.is_dir():
        return f"must be a file; {str(path)!r} is a folder"
    if not path.parent.is_dir():
        return f"the {kind} {str(path)!r} does not exist, nor does its folder"
    hint = did_you_mean(path.name, (entry.name for entry in path.parent.iterdir()))
    return f"the {kind} {str(path)!r} does not exist.{hint}"
