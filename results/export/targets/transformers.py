"""A training script for transformers' Trainer, with a learning rate of its own for the embeddings."""

from __future__ import annotations

from pathlib import Path

from packaging.version import Version

from results.export.config_values import Config
from results.export.target import ExportDraft, Target
from results.export.training_script import (
    check_config,
    script_draft,
    script_facts,
    script_notes,
    trainer_facts,
)

ARGUMENTS = "training_args.yaml"

_FIXED = {
    "logging_steps": 1,
    "save_strategy": "no",
    "report_to": "none",
    "remove_unused_columns": False,
    "label_names": ["labels"],
    # The script loads the base in its compute dtype; autocast would convert once more.
    "bf16": False,
    "fp16": False,
}


def _build(config: Config, adapter_folder: Path | None, version: Version | None) -> ExportDraft:
    check_config("transformers", config)
    return script_draft(
        config,
        script_facts(config) | trainer_facts(config),
        template="train_transformers.py.jinja",
        settings=ARGUMENTS,
        title="Settings of transformers' TrainingArguments (>= 4.57), read by train.py beside this file.",
        fixed=_FIXED,
        notes=script_notes(config, ARGUMENTS),
    )


TARGET = Target(
    name="transformers",
    summary="train.py for transformers' Trainer + peft + bitsandbytes, with training_args.yaml",
    build=_build,
    package="transformers",
    written_for="5.23.0",
    oldest="4.57",
    before="6",
)
