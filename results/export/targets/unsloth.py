"""A training script for Unsloth, whose trainer has a setting for the embedding learning rate.

Keys and behaviour read from unsloth 2026.10.9 (trainer.py, models/llama.py, models/loader.py).
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from packaging.version import Version

from results.export.config_values import Config, quantization_arguments, revision_notes, section
from results.export.target import ExportDraft, FactExport, Target, as_settings, not_expressed, written_in
from results.export.training_script import (
    DEFAULT_MAX_LENGTH,
    OTHER_MODEL_CLASS,
    SCRIPT,
    check_config,
    script_constants,
    script_draft,
    script_facts,
    script_notes,
    trainer_facts,
)

ARGUMENTS = "training_args.yaml"
_EMBEDDINGS = {"embed_tokens", "lm_head"}
_USUAL = {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "bnb_4bit_use_double_quant": True}
_LORA = ("r", "lora_alpha", "lora_dropout", "use_rslora", "target_modules", "modules_to_save")

_FIXED = {
    "logging_steps": 1,
    "save_strategy": "no",
    "report_to": "none",
    "packing": False,
    "bf16": False,
    "fp16": False,
    # The examples are tokenized and have labels already.
    "dataset_kwargs": {"skip_prepare_dataset": True},
    "remove_unused_columns": False,
}


def _facts(config: Config) -> dict[str, FactExport]:
    training, lora = section(config, "training"), section(config, "lora")
    facts = script_facts(config) | trainer_facts(config)
    facts["embedding_learning_rate"] = as_settings(
        embedding_learning_rate=training.get("embedding_learning_rate")
    )
    facts["max_length"] = replace(
        facts["max_length"],
        settings={"max_length": section(config, "data").get("max_length") or DEFAULT_MAX_LENGTH},
    )
    facts["trainable_token_indices"] = not_expressed(
        "Unsloth computes the output layer from its weight alone, so rows of single tokens are not trained: "
        "all embeddings stay frozen."
    )
    facts["model_class"] = not_expressed(OTHER_MODEL_CLASS)
    others = [name for name in lora.get("modules_to_save") or [] if name not in _EMBEDDINGS]
    if others:
        facts["modules_to_save"] = written_in(
            f"{SCRIPT}: LORA",
            lost=f"Unsloth trains embed_tokens and lm_head in full, not {', '.join(others)}.",
        )
    usual = quantization_arguments(config) in ({}, _USUAL)
    if not usual:
        facts["quantization"] = written_in(
            f"{SCRIPT}: LOAD_IN_4BIT", lost="Unsloth quantizes to NF4 with double quantization only."
        )
    if not lora.get("modules_to_save"):
        facts["trained_embeddings_dtype"] = not_expressed("No embeddings are trained, see above.")
        facts["embedding_learning_rate"] = not_expressed(
            "No embeddings are trained that the rate could govern."
        )
    return facts


def _build(config: Config, adapter_folder: Path | None, version: Version | None) -> ExportDraft:
    check_config("unsloth", config)
    values = script_constants(config, _LORA)
    del values["QUANTIZATION"], values["EMBEDDING_LEARNING_RATE"]
    values["LOAD_IN_4BIT"] = str(section(config, "quantization").get("load_in_4bit") is not False)
    notes = [
        f"Written from the published code of unsloth {version}; it needs a GPU and was not run by the sweep.",
        *script_notes(config, ARGUMENTS)[:3],
        *revision_notes(config),
        "Unsloth gives the embedding learning rate to modules that are trained in full.",
    ]
    return script_draft(
        config,
        _facts(config),
        template="train_unsloth.py.jinja",
        settings=ARGUMENTS,
        title=f"Arguments of UnslothTrainingArguments (unsloth {version}), read by train.py.",
        fixed=_FIXED,
        notes=notes,
        values=values,
        version=version,
    )


TARGET = Target(
    name="unsloth",
    summary="train.py for UnslothTrainer, with training_args.yaml",
    build=_build,
    package="unsloth",
    written_for="2026.10.9",
    oldest="2026.10",
    before="2027",
)
