"""All export targets by name, and the function that writes one."""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from files_and_text.atomic_files import atomic_copy, atomic_write, sync_folder
from files_and_text.nearest_name import nearest
from files_and_text.plain_values import plain
from results.errors import LossyExport, UnknownTarget, WouldOverwrite
from results.export.config_values import Config, section
from results.export.target import ExportDraft, ExportResult, Target, lossy_sentences
from results.export.targets import axolotl as axolotl_target
from results.export.targets import llama_cpp as llama_cpp_target
from results.export.targets import llama_factory as llama_factory_target
from results.export.targets import peft as peft_target
from results.export.targets import transformers as transformers_target
from results.export.targets import trl as trl_target
from results.export.targets import unsloth as unsloth_target
from results.export.targets import yaml as yaml_target
from results.export.written_records import SweepRecords, WrittenRecords, written_records

TARGETS: dict[str, Target] = {
    module.TARGET.name: module.TARGET
    for module in (
        peft_target,
        transformers_target,
        trl_target,
        unsloth_target,
        axolotl_target,
        llama_factory_target,
        llama_cpp_target,
        yaml_target,
    )
}
"""Export targets by the name `sweeps export --to` takes."""


def export(
    target: str,
    best_config: Mapping[str, Any],
    adapter_folder: Path | None,
    destination: Path,
    *,
    target_version: str | None = None,
    strict: bool = False,
    overwrite: bool = False,
    records: SweepRecords | None = None,
) -> ExportResult:
    """Write the best config (`best_config()` or `read_best_config()`) for `target` into the folder
    `destination`, as its version `target_version` takes it (None: the version the target was written for).

    `records` are written beside the settings for a target that reads records with its own code.
    All files are written to a temporary folder and checked there first, so a refused export leaves nothing
    behind. Raises UnknownTarget, LossyExport (only when `strict`), WouldOverwrite (unless `overwrite`), and
    ExportError or AdapterFilesError for a config or an adapter that the target cannot use.
    """
    if target not in TARGETS:
        raise UnknownTarget(f"export target {target!r} does not exist.{nearest(target, TARGETS)}")
    version = TARGETS[target].version(target_version)
    config = plain(best_config)
    written = WrittenRecords(config=config, files={}, notes=[])
    if records is not None and TARGETS[target].reads_records:
        written = written_records(config, records)
        config = written.config
    draft = TARGETS[target].build(config, adapter_folder, version)
    draft = replace(draft, files={**draft.files, **written.files}, notes=[*written.notes, *draft.notes])
    lossy = lossy_sentences(config, draft.facts)
    if strict and lossy:
        raise LossyExport(target, lossy)
    present = [destination / name for name in draft.files if (destination / name).exists()]
    if present and not overwrite:
        raise WouldOverwrite(present)
    files = _write(draft, destination)
    return ExportResult(
        target=target,
        files=files,
        lossy=lossy,
        notes=[*draft.notes, *_notes_of_paths(config)],
        facts=dict(draft.facts),
    )


def _notes_of_paths(config: Config) -> list[str]:
    """A note on local paths in the files, which users may not want to publish."""
    keys = (("model", "name"), ("data", "train"), ("data", "eval"))
    values = [str(section(config, name).get(key) or "") for name, key in keys]
    found = [value for value in values if Path(value).is_absolute()]
    return [f"The files name paths of this machine: {', '.join(found)}."] if found else []


def _write(draft: ExportDraft, destination: Path) -> list[Path]:
    destination.parent.mkdir(parents=True, exist_ok=True)
    stage = destination.with_name(f".{destination.name}.{secrets.token_hex(4)}.tmp")
    stage.mkdir()
    try:
        for name, content in draft.files.items():
            if isinstance(content, Path):
                atomic_copy(content, stage / name)
            else:
                atomic_write(stage / name, content)
        if draft.check is not None:
            draft.check(stage)
        for name in draft.files:
            (destination / name).parent.mkdir(parents=True, exist_ok=True)
            (stage / name).replace(destination / name)
        sync_folder(destination)
    finally:
        shutil.rmtree(stage, ignore_errors=True)
    return [destination / name for name in draft.files]
