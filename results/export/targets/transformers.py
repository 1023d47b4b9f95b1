"""A training script for transformers' Trainer, with the second learning rate it has no setting for."""

from __future__ import annotations

from pathlib import Path

from packaging.version import Version

from results.export.target import Config, Draft, Target
from results.export.training_script import (
    check_config,
    draft_of,
    notes_of,
    said_by_script,
    trainer_arguments,
)

ARGUMENTS = "training_args.yaml"

_FIXED = {
    "logging_steps": 1,
    "save_strategy": "no",
    "report_to": "none",
    "remove_unused_columns": False,
    "label_names": ["labels"],
    # The script loads the base in its compute dtype; autocast would come on top.
    "bf16": False,
    "fp16": False,
}


def _draft(config: Config, adapter_folder: Path | None, version: Version | None) -> Draft:
    check_config("transformers", config)
    return draft_of(
        config,
        said_by_script(config) | trainer_arguments(config),
        template="train_transformers.py.jinja",
        settings=ARGUMENTS,
        title="Settings of transformers' TrainingArguments (>= 4.57), read by train.py beside this file.",
        fixed=_FIXED,
        notes=notes_of(config, ARGUMENTS),
    )


TARGET = Target(
    name="transformers",
    summary="train.py for transformers' Trainer + peft + bitsandbytes, with training_args.yaml",
    draft=_draft,
    package="transformers",
    written_for="5.23.0",
    oldest="4.57",
    before="6",
)
