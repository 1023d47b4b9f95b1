"""The adapter with the commands that make GGUF files of it.

Read from llama.cpp at commit 0b03ada (convert_lora_to_gguf.py): it takes LoRA matrices alone, ends at any
other trained weight, and llama.cpp scales by alpha / r whatever `use_rslora` says.
"""

from __future__ import annotations

import json
import math
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from packaging.version import Version

from files_and_text.trial_paths import ADAPTER_CONFIG, ADAPTER_WEIGHTS
from files_and_text.yaml_lines import dump_yaml
from results.adapter_files import check_adapter_files, check_adapter_loads
from results.errors import ExportError
from results.export.facts import FACTS, revision_notes, section, template_text, trains_embeddings
from results.export.merging import MERGE, another_base, merge_script, served_files
from results.export.python_text import flat, provenance
from results.export.target import Config, Draft, FactExport, Target, by_code, lossy_of, lost
from results.export.targets.yaml import FILE as RECORD
from results.export.template import render_template
from results.export.training_script import check_compiles
from results.tokenizer_files import TEMPLATE

CONVERT = "convert.sh"
_NO_TRAINING = (
    "llama.cpp trains no LoRA adapter on a 4-bit base: rates, schedule, batch, optimizer and data stand in "
    "config.yaml as a record."
)
_MUST_MERGE = (
    "Trained embeddings have no place in a GGUF adapter: they are merged into a full model, which cannot be "
    "switched off and on like an adapter."
)


def _said(config: Config, merged: bool) -> dict[str, FactExport]:
    adapter = by_code(ADAPTER_CONFIG)
    said = {fact.name: lost(_NO_TRAINING) for fact in FACTS}
    said |= dict.fromkeys(("lora_r", "lora_alpha", "use_rslora", "target_modules"), adapter)
    said |= dict.fromkeys(("study", "versions"), by_code(RECORD))
    said |= dict.fromkeys(
        ("model", "revision", "trust_remote_code", "model_class"), by_code(f"{CONVERT}, {MERGE}")
    )
    said["quantization"] = lost(another_base(config))
    said |= dict.fromkeys(
        ("modules_to_save", "trainable_token_indices"), by_code(MERGE, lost=_MUST_MERGE if merged else "")
    )
    if template_text(config) is not None:
        said["chat_template"] = by_code(f"{TEMPLATE}, {CONVERT}")
    return said


def _adapter_config(config: Config, adapter: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """peft's settings as llama.cpp computes with them, and what was changed."""
    model = section(config, "model")
    changed = dict(adapter) | {"base_model_name_or_path": model["name"], "revision": model.get("revision")}
    if not adapter.get("use_rslora"):
        return changed, []
    rank, alpha = int(adapter["r"]), float(adapter["lora_alpha"])
    changed |= {"use_rslora": False, "lora_alpha": alpha * math.sqrt(rank)}
    return changed, [
        f"The adapter was trained with rsLoRA, alpha / sqrt(r) = {alpha:g} / sqrt({rank}). llama.cpp "
        f"computes alpha / r, so this copy of {ADAPTER_CONFIG} holds alpha * sqrt(r) = "
        f"{changed['lora_alpha']:g}: the same product."
    ]


def _draft(config: Config, adapter_folder: Path | None, version: Version | None) -> Draft:
    if adapter_folder is None:
        raise ExportError("the llama.cpp target needs the folder of the trained adapter")
    model = section(config, "model")
    if not model.get("name"):
        raise ExportError("the llama.cpp target needs the base model's name, and the config has none")
    adapter = check_adapter_files(adapter_folder)
    patterned = bool(adapter.get("alpha_pattern") or adapter.get("rank_pattern"))
    trained = trains_embeddings(config) or bool(
        adapter.get("modules_to_save") or adapter.get("trainable_token_indices")
    )
    said = _said(config, trained)
    lossy = lossy_of(config, said)
    written, notes = _adapter_config(config, adapter)
    if patterned:
        notes.append("A GGUF adapter has one alpha; this one has several, so it is merged.")
    notes += revision_notes(config)
    trusted = model.get("trust_remote_code") is True
    values = {
        "provenance": provenance(config),
        "base": shlex.quote(str(model["name"])),
        "merged": trained or patterned,
        "trusted": trusted,
        "template": TEMPLATE if template_text(config) is not None else None,
        "lossy_lines": [flat(line) for line in lossy],
        "note_lines": [flat(line) for line in notes],
    }
    return Draft(
        files={
            ADAPTER_CONFIG: json.dumps(written, indent=2, sort_keys=True) + "\n",
            ADAPTER_WEIGHTS: adapter_folder / ADAPTER_WEIGHTS,
            CONVERT: render_template("convert.sh.jinja", **values),
            MERGE: merge_script(config, lossy, notes),
            RECORD: dump_yaml(dict(config)),
            **served_files(config, adapter_folder),
        },
        said=said,
        notes=notes,
        check=_check,
    )


def _check(folder: Path) -> None:
    check_adapter_loads(folder)
    check_compiles(folder)


TARGET = Target(
    name="llama.cpp",
    summary="the adapter with commands that make GGUF files of it",
    draft=_draft,
)
