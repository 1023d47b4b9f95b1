"""The adapter with a script that converts it to GGUF.

From llama.cpp at commit 0b03ada: convert_lora_to_gguf.py takes LoRA matrices only and fails on any other
trained weight, and llama.cpp scales by alpha / r even with `use_rslora`.
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
from results.export.config_values import (
    Config,
    chat_template_text,
    revision_notes,
    section,
    trains_embeddings,
)
from results.export.facts import FACTS
from results.export.generated_text import one_line, provenance_lines
from results.export.jinja_templates import render_template
from results.export.merge_script import MERGE_SCRIPT, merge_script, other_base_warning, tokenizer_and_template
from results.export.target import ExportDraft, FactExport, Target, lossy_sentences, not_expressed, written_in
from results.export.targets.yaml import FILE as RECORD
from results.export.training_script import check_compiles
from results.tokenizer_files import TEMPLATE

CONVERT = "convert.sh"
_NO_TRAINING = (
    "llama.cpp trains no LoRA adapter on a 4-bit base: rates, schedule, batch, optimizer and data are in "
    "config.yaml as a record."
)
_MUST_MERGE = (
    "Trained embeddings have no place in a GGUF adapter: they are merged into a full model, which cannot be "
    "switched off and on like an adapter."
)


def _facts(config: Config, merged: bool) -> dict[str, FactExport]:
    adapter = written_in(ADAPTER_CONFIG)
    facts = {fact.name: not_expressed(_NO_TRAINING) for fact in FACTS}
    facts |= dict.fromkeys(("lora_r", "lora_alpha", "use_rslora", "target_modules"), adapter)
    facts |= dict.fromkeys(("study", "versions"), written_in(RECORD))
    facts |= dict.fromkeys(
        ("model", "revision", "trust_remote_code", "model_class"), written_in(f"{CONVERT}, {MERGE_SCRIPT}")
    )
    facts["quantization"] = not_expressed(other_base_warning(config))
    facts |= dict.fromkeys(
        ("modules_to_save", "trainable_token_indices"),
        written_in(MERGE_SCRIPT, lost=_MUST_MERGE if merged else ""),
    )
    if chat_template_text(config) is not None:
        facts["chat_template"] = written_in(f"{TEMPLATE}, {CONVERT}")
    return facts


def _adapter_config(config: Config, adapter: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """peft's adapter config, changed so that llama.cpp scales as the sweep did, and notes on the changes."""
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


def _build(config: Config, adapter_folder: Path | None, version: Version | None) -> ExportDraft:
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
    facts = _facts(config, trained)
    lossy = lossy_sentences(config, facts)
    written, notes = _adapter_config(config, adapter)
    if patterned:
        notes.append("A GGUF adapter has one alpha; this one has several, so it is merged.")
    notes += revision_notes(config)
    trusted = model.get("trust_remote_code") is True
    values = {
        "provenance": provenance_lines(config),
        "base": shlex.quote(str(model["name"])),
        "merged": trained or patterned,
        "trusted": trusted,
        "template": TEMPLATE if chat_template_text(config) is not None else None,
        "lossy_lines": [one_line(line) for line in lossy],
        "note_lines": [one_line(line) for line in notes],
    }
    return ExportDraft(
        files={
            ADAPTER_CONFIG: json.dumps(written, indent=2, sort_keys=True) + "\n",
            ADAPTER_WEIGHTS: adapter_folder / ADAPTER_WEIGHTS,
            CONVERT: render_template("convert.sh.jinja", **values),
            MERGE_SCRIPT: merge_script(config, lossy, notes),
            RECORD: dump_yaml(dict(config)),
            **tokenizer_and_template(config, adapter_folder),
        },
        facts=facts,
        notes=notes,
        check=_check,
    )


def _check(folder: Path) -> None:
    check_adapter_loads(folder)
    check_compiles(folder)


TARGET = Target(
    name="llama.cpp", summary="the adapter with commands that make GGUF files of it", build=_build
)
