"""Which names in a sweep file are local paths, made absolute."""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Callable
from pathlib import Path

from files_and_text.yaml_lines import KeyPath
from sweeps.config.storage_url import absolute_storage
from sweeps.config.sweep_config import SweepConfig

DATA_SUFFIXES = (".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet")
_HUB_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*(/[A-Za-z0-9][A-Za-z0-9._-]*)?")
_CONFIG = re.compile(r"[\w.+-]+")


def is_local(text: str, folder: Path, *, suffixes: tuple[str, ...] = ()) -> bool:
    """Whether `text` is a path, not a hub id: it looks like one, or exists in `folder`."""
    written = text.startswith(("./", "../", "/", "~")) or text in (".", "..") or "\\" in text
    return written or text.lower().endswith(suffixes) or absolute(text, folder).exists()


def is_hub_id(text: str, *, data: bool = False) -> bool:
    """Whether `text` is written like `owner/name` or `name`; a dataset's may end with `:config`."""
    name, colon, config = text.partition(":") if data else (text, "", "")
    return _HUB_ID.fullmatch(name) is not None and (not colon or _CONFIG.fullmatch(config) is not None)


def is_template_file(text: str | None) -> bool:
    """Whether a chat template names a file, rather than being Jinja text, `chatml` or the tokenizer's own."""
    return text is not None and text != "chatml" and "{" not in text and "\n" not in text


def absolute(text: str, folder: Path) -> Path:
    """`text` as an absolute path, from `folder` if relative; links stay: their targets may lack a suffix."""
    return Path(os.path.abspath(folder / Path(text).expanduser()))


def with_absolute_paths(config: SweepConfig, folder_of: Callable[[KeyPath], Path]) -> SweepConfig:
    """The same config with all local paths absolute; `folder_of` says where a key's relative path starts."""

    def path(text: str, *key: str | int) -> str:
        return str(absolute(text, folder_of(key)))

    def source(text: str, *key: str | int, suffixes: tuple[str, ...] = ()) -> str:
        return path(text, *key) if is_local(text, folder_of(key), suffixes=suffixes) else text

    model, data, metric = config.model, config.data, config.metric
    data = dataclasses.replace(
        data,
        train=source(data.train, "data", "train", suffixes=DATA_SUFFIXES),
        eval=data.eval and source(data.eval, "data", "eval", suffixes=DATA_SUFFIXES),
    )
    if is_template_file(template := data.chat_template):
        data = dataclasses.replace(data, chat_template=path(str(template), "data", "chat_template"))
    changes: dict[str, dict[str, str | None]] = {"model": {"name": source(model.name, "model", "name")}}
    checkpoints = config.reliability.checkpoints
    if checkpoints is not None and "://" not in checkpoints:
        changes["reliability"] = {"checkpoints": path(checkpoints, "reliability", "checkpoints")}
    if metric is not None and metric.file is not None:
        changes["metric"] = {"file": path(metric.file, "metric", "file")}
    elif metric is not None and metric.is_function:
        module = metric.name.partition(":")[0].replace(".", "/")
        beside = folder_of(("metric", "name")) / f"{module}.py"
        changes["metric"] = {"file": str(beside) if beside.is_file() else None}
    sections = {name: getattr(config, name).model_copy(update=changed) for name, changed in changes.items()}
    return config.model_copy(
        update={
            **sections,
            "data": data,
            "guidelines": tuple(path(file, "guidelines", at) for at, file in enumerate(config.guidelines)),
            "storage": absolute_storage(config.storage, folder_of(("storage",))),
            "output": path(config.output, "output"),
        }
    )
