"""Which names in a sweep file are local files, and where they are."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from files_and_text.yaml_lines import KeyPath
from sweeps.config.sections.storage import absolute_storage
from sweeps.config.sweep_config import SweepConfig

DATA_SUFFIXES = (".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet")
_HUB_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*(/[A-Za-z0-9][A-Za-z0-9._-]*)?")
_CONFIG = re.compile(r"[\w.+-]+")


def is_local(text: str, folder: Path, *, suffixes: tuple[str, ...] = ()) -> bool:
    """Whether `text` names a file or folder, not a hub id: it looks like one, or exists below `folder`."""
    written = text.startswith(("./", "../", "/", "~")) or text in (".", "..") or "\\" in text
    return written or text.lower().endswith(suffixes) or absolute(text, folder).exists()


def is_hub_id(text: str, *, data: bool = False) -> bool:
    """Whether `text` is written like `owner/name` or `name`; a dataset's may end with `:config`."""
    name, colon, config = text.partition(":") if data else (text, "", "")
    return _HUB_ID.fullmatch(name) is not None and (not colon or _CONFIG.fullmatch(config) is not None)


def is_template_file(text: str) -> bool:
    """Whether a chat template names a file, rather than being Jinja text or `chatml`."""
    return text != "chatml" and "{" not in text and "\n" not in text


def absolute(text: str, folder: Path) -> Path:
    """`text` as an absolute path, relative ones from `folder`; links stay, as targets may lack a suffix."""
    return Path(os.path.abspath(folder / Path(text).expanduser()))


def with_absolute_paths(config: SweepConfig, folder_of: Callable[[KeyPath], Path]) -> SweepConfig:
    """The same config with all local paths absolute; `folder_of` tells where a key's relative path starts."""

    def local(text: str | None, *key: str | int, suffixes: tuple[str, ...] = ()) -> str | None:
        if text is None or not is_local(text, folder_of(key), suffixes=suffixes):
            return text
        return str(absolute(text, folder_of(key)))

    data: dict[str, Any] = {
        key: local(getattr(config.data, key), "data", key, suffixes=DATA_SUFFIXES)
        for key in ("train", "eval")
    }
    template = config.data.chat_template
    if template is not None and is_template_file(template):
        data["chat_template"] = str(absolute(template, folder_of(("data", "chat_template"))))
    files = tuple(
        str(absolute(file, folder_of(("guidelines", index)))) for index, file in enumerate(config.guidelines)
    )
    reliability: dict[str, Any] = {}
    checkpoints = config.reliability.checkpoints
    if checkpoints is not None and "://" not in checkpoints:
        folder = folder_of(("reliability", "checkpoints"))
        reliability["checkpoints"] = str(absolute(checkpoints, folder))
    metric = config.metric
    if metric is not None and metric.file is not None:
        file = absolute(metric.file, folder_of(("metric", "file")))
        metric = metric.model_copy(update={"file": str(file)})
    elif metric is not None and metric.is_function:
        beside = folder_of(("metric", "name")) / f"{metric.name.partition(':')[0].replace('.', '/')}.py"
        if beside.is_file():
            metric = metric.model_copy(update={"file": str(beside)})
    return config.model_copy(
        update={
            "metric": metric,
            "model": config.model.model_copy(update={"name": local(config.model.name, "model", "name")}),
            "reliability": config.reliability.model_copy(update=reliability),
            "data": config.data.model_copy(update=data),
            "guidelines": files,
            "storage": absolute_storage(config.storage, folder_of(("storage",))),
            "output": str(absolute(config.output, folder_of(("output",)))),
        }
    )
