"""A training script for Unsloth, whose trainer has an embedding learning rate of its own.

Keys and behaviour read from unsloth 2026.10.9 (trainer.py, models/llama.py, models/loader.py).
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from packaging.version import Version

from results.export.facts import OTHER_CLASS, quantization_arguments, revision_notes, section
from results.export.target import Config, Draft, FactExport, Target, by_code, by_keys, lost
from results.export.training_script import (
    DEFAULT_MAX_LENGTH,
    SCRIPT,
    check_config,
    constants,
    draft_of,
    notes_of,
    said_by_script,
    trainer_arguments,
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
    # The examples come with their labels: nothing is tokenised or masked again.
    "dataset_kwargs": {"skip_prepare_dataset": True},
    "remove_unused_columns": False,
}


def _said(config: Config) -> dict[str, FactExport]:
    training, lora = section(config, "training"), section(config, "lora")
    said = said_by_script(config) | trainer_arguments(config)
    said["embedding_learning_rate"] = by_keys(embedding_learning_rate=training.get("embedding_learning_rate"))
    said["max_length"] = replace(
        said["max_length"],
        keys={"max_length": section(config, "data").get("max_length") or DEFAULT_MAX_LENGTH},
    )
    said["trainable_token_indices"] = lost(
        "Unsloth computes the output layer from its weight alone, so rows of single tokens are not trained: "
        "all embeddings stay frozen."
    )
    said["model_class"] = lost(OTHER_CLASS)
    others = [name for name in lora.get("modules_to_save") or [] if name not in _EMBEDDINGS]
    if others:
        said["modules_to_save"] = by_code(
            f"{SCRIPT}: LORA",
            lost=f"Unsloth trains embed_tokens and lm_head in full, not {', '.join(others)}.",
        )
    usual = quantization_arguments(config) in ({}, _USUAL)
    if not usual:
        said["quantization"] = by_code(
            f"{SCRIPT}: LOAD_IN_4BIT", lost="Unsloth quantizes to NF4 with double quantization only."
        )
    if not lora.get("modules_to_save"):
        said["trained_embeddings_dtype"] = lost("No embeddings are trained, see above.")
        said["embedding_learning_rate"] = lost("No embeddings are trained that the rate could govern.")
    return said


def _draft(config: Config, adapter_folder: Path | None, version: Version | None) -> Draft:
    check_config("unsloth", config)
    values = constants(config, _LORA)
    del values["QUANTIZATION"], values["EMBEDDING_LEARNING_RATE"]
    values["LOAD_IN_4BIT"] = str(section(config, "quantization").get("load_in_4bit") is not False)
    notes = [
        f"Written from the published code of unsloth {version}; it needs a GPU and was not run by the sweep.",
        *notes_of(config, ARGUMENTS)[:3],
        *revision_notes(config),
        "Unsloth gives the embedding learning rate to modules that are trained in full.",
    ]
    return draft_of(
        config,
        _said(config),
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
    draft=_draft,
    package="unsloth",
    written_for="2026.10.9",
    oldest="2026.10",
    before="2027",
)
